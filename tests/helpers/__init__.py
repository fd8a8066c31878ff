"""Shared helpers: small data sets, media files, a plain restatement of the model."""
