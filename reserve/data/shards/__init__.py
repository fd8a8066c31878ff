"""Prepared videos in shards: WebDataset tar files with an index beside each, for many machines to write and to read."""
