"""The protocol without I/O: no event loop, no sockets, no files, no clock, no randomness."""
