"""Released checkpoints."""
