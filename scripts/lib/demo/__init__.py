"""What scripts/demo runs: three nodes, a real data set, and a cable that is cut and mended."""
