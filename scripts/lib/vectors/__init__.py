"""Writes the golden vectors."""
