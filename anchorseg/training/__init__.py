"""A run: settings, data, what trains, the loop, checkpoints, merging."""
