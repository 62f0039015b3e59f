"""Where peers are: what the configuration names, and later what the local network shows."""
