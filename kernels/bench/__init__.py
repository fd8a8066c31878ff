"""Benchmarks of the ops on the user's machine: `python -m reserve_kernels.bench --help`."""
