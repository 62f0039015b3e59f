"""How a lab comes to life: one interface, several drivers."""
