"""Labs in virtual time: whole nodes with real QUIC, on a simulated network that a seed determines."""
