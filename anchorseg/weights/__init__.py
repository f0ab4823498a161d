"""Where weights come from and go to: model folders, sizes, released checkpoints."""
