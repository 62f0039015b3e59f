"""What a node remembers: the stores, and above their tables the replica, which keeps the invariants."""
