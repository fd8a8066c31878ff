"""From videos to a set of shards, by any number of processes on any number of machines."""

from __future__ import annotations

from reserve.data.prepare.shards.events import Event
from reserve.data.prepare.shards.prepare import Preparation, prepare_shards
from reserve.data.prepare.shards.progress import shard_progress, skipped_counts

__all__ = ["Event", "Preparation", "prepare_shards", "shard_progress", "skipped_counts"]
