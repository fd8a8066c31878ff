"""Tables and plots of what benchmarks/results holds: `python -m benchmarks.report` writes them, `--check` compares."""
