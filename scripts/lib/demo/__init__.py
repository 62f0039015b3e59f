"""What scripts/demo runs: stories of three nodes, one of which is cut off while all go on writing."""
