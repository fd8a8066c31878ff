"""What examples are planned from: collections of prepared videos, in store files or in shards."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from reserve.data.store import load_segments, load_texts, naming_store, read_summary
from reserve.data.types import Segments


class Collection(Protocol):
    """Segments of some videos, which are numbered from 0. Objects can be pickled."""

    def segment_counts(self) -> Sequence[int] | npt.NDArray[np.int64]:
        """Segments of each video."""
        ...

    def load(self, video: int, start: int, stop: int, /) -> Segments:
        """Segments `start` to `stop` - 1 of a video. Raises BadInput naming the file at fault."""
        ...

    def texts(self, video: int, /) -> list[str]:
        """The words of each segment of a video, joined by spaces. Raises as `load` does."""
        ...

    def naming(self, video: int, /) -> AbstractContextManager[None]:
        """Adds the file of a video, and what to do about it, to a BadInput raised inside."""
        ...


class Part(Protocol):
    """Videos that examples are planned from at a time: a folder of store files, or one shard. Objects can be pickled.

    `name` is for messages; `num_segments` is known without opening the part.
    """

    @property
    def name(self) -> str: ...

    @property
    def num_segments(self) -> int: ...

    def open(self) -> Collection:
        """Raises BadInput naming the part if it is gone or damaged as a whole."""
        ...


@dataclass(frozen=True)
class PartSet:
    """Parts that are one data set. `weight` is its share of a mixture; sets without weights are used as one.

    `identity` changes whenever the set's contents do; empty where that is not known.
    """

    name: str
    parts: Sequence[Part]
    num_videos: int
    weight: float | None = None
    identity: str = ""

    @classmethod
    def of_stores(cls, stores: Sequence[str | Path]) -> PartSet:
        """A folder of store files, as one part."""
        return cls("the videos", [StoreFiles(stores)], len(stores))


CACHED_TEXTS = 256
"""Videos whose words a loading process keeps, some 50 KB for an hour of talk. Examples draw random text from other
videos; reading that from their files took a quarter of the time that loading the demo's examples takes."""


class StoreFiles:
    """Store files (`reserve.data.store`), one a video: a part, and its own collection.

    Raises BadInput naming the file if one is damaged.
    """

    name = "the videos"

    def __init__(self, stores: Sequence[str | Path]) -> None:
        self._stores = tuple(map(Path, stores))
        self._counts = tuple(map(_num_segments, self._stores))
        self._texts: dict[int, list[str]] = {}

    @property
    def num_segments(self) -> int:
        """Segments of all videos."""
        return sum(self._counts)

    def open(self) -> StoreFiles:
        return self

    def segment_counts(self) -> Sequence[int]:
        return self._counts

    def load(self, video: int, start: int, stop: int) -> Segments:
        return load_segments(self._stores[video], start, stop)

    def texts(self, video: int) -> list[str]:
        if video not in self._texts:
            texts = load_texts(self._stores[video])
            if len(self._texts) == CACHED_TEXTS:
                del self._texts[next(iter(self._texts))]
            self._texts[video] = texts
        return list(self._texts[video])

    def naming(self, video: int) -> AbstractContextManager[None]:
        return naming_store(self._stores[video])


def _num_segments(store: Path) -> int:
    with naming_store(store):
        return read_summary(store).num_segments
