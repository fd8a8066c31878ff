"""Tests and measurements on a GPU machine, in parts that fail separately; see `python -m benchmarks.gpu`."""
