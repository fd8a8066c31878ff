"""Where shards are prepared: in processes of this machine, or on the machines of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from reserve.data.prepare.shards.events import Report
from reserve.data.prepare.shards.plan import ShardPlan

ENGINES = ("local", "ray")


class Engine(Protocol):
    """Prepares shards of a plan."""

    def build(self, plan: ShardPlan, numbers: Iterable[int], report: Report) -> list[int]:
        """Prepares and writes the shards `numbers`; leaves alone those that are finished.

        Returns those on which other processes work. Raises EnvironmentFailure, or OSError, where the machine fails:
        what is prepared is kept.
        """
        ...
