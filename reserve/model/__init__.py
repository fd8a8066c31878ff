"""The model: transformer, encoders, joint encoder and head, and the folder format of its weights."""
