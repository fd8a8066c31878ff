"""Official checkpoints: the msgpack files of the released models, and conversion between formats."""
