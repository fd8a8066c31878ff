"""Pretraining: predict masked-out frames, sounds and text spans of narrated videos."""
