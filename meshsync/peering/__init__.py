"""Peers: who may connect, who is dialled, and the one connection with each."""
