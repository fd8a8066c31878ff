"""Benchmarks, one file per op: `pytest benchmarks/log_mel.py`. Not part of the package."""
