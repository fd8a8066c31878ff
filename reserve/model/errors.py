"""What loading a model can raise."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says what is wrong with it."""
