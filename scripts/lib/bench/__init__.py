"""What scripts/bench runs: two nodes, a process each, and the workloads between them."""
