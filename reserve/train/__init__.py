"""The trainer: steps, metrics, checkpoints and signals, for any task."""
