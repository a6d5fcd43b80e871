"""What a run leaves on disk: its folder, its checkpoints, and the locks on both."""
