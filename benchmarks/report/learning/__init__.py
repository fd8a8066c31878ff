"""docs/learning.md and its plots: what the studies of benchmarks/learning found."""
