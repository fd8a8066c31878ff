"""data/decode"""
