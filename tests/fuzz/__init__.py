"""Fuzzing of everything that reads files of unknown origin. Bounded and seeded in the suite, longer in `make fuzz`."""
