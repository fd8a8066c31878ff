"""What shards cost to make, to keep and to train from (docs/twenty_million.md)."""
