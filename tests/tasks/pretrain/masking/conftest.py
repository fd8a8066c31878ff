"""Examples to mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from reserve.config import DataConfig
from reserve.tasks.pretrain.text import MetadataPrefixes, UnmaskedText

MakeText = Callable[..., UnmaskedText]


@pytest.fixture(scope="session")
def prefixes() -> MetadataPrefixes:
    """The prefixes' ids in the released vocabulary."""
    return MetadataPrefixes(*(np.array(ids, np.int32) for ids in ([3388, 35], [2026, 35], [10884, 35])))


@pytest.fixture(scope="session")
def make_text() -> MakeText:
    """Make an UnmaskedText of words (segment, start, end); word i has the id 100 + i."""

    def make(
        data: DataConfig,
        words: list[tuple[int, float, float]],
        *,
        playback_speed: list[int] | None = None,
        metadata: tuple[int, int, int] = (0, 0, 0),
        random_text: int = 0,
        not_plain: tuple[int, ...] = (),
    ) -> UnmaskedText:
        """`metadata`: lengths of title, description, tags; `random_text`: its length, with ids from 20000 up."""
        segment, start, end = np.array(words, np.float64).reshape(-1, 3).T
        is_plain = np.ones(random_text, bool)
        is_plain[list(not_plain)] = False
        title, description, tags = (np.full(n, 50 + i, np.int32) for i, n in enumerate(metadata))
        return UnmaskedText(
            token_ids=100 + np.arange(len(words), dtype=np.int32),
            token_start=start.astype(np.float32),
            token_end=end.astype(np.float32),
            token_segment=segment.astype(np.int32),
            playback_speed=np.array(playback_speed or [1] * data.num_segments, np.int32),
            video_src_index=np.zeros(data.num_segments, np.int32),
            title=title,
            description=description,
            tags=tags,
            random_text=20000 + np.arange(random_text, dtype=np.int32),
            random_text_is_plain=is_plain,
        )

    return make
