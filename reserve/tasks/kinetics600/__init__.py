"""Kinetics-600: what people do in clips of ten seconds (TASKS 3)."""
