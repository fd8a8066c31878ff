"""Kinetics-600: what people do in clips of ten seconds (SPEC 10.9)."""
