"""What the preparation of shards reports while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from reserve.data.prepare.shards.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Event:
    """`started`: work on a shard begins, again if it was interrupted, and `kept` of its videos need no preparation.
    `video`: the `outcome` of one, whose file is `path`. `written`: the shard is finished; `kept` are all its videos.
    `busy`: another process works on the shard."""

    shard: int
    kind: Literal["started", "video", "written", "busy"]
    kept: int = 0
    path: str = ""
    outcome: Outcome | None = None


Report = Callable[[Event], None]


def ignore(_: Event) -> None:
    """Reports nothing."""
