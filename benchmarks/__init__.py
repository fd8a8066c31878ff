"""The benchmark suite. `python -m benchmarks --help` says how to run it; docs/benchmarks.md shows what it measured."""
