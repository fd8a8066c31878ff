"""Settings of the filters that keep videos out of a set of shards."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reserve.config.ranges import check_range


@dataclass(frozen=True)
class FilterConfig:
    """Which videos stay out of a data set of shards. A video that a filter skips is listed with its reason."""

    max_static_share: float = 0.95
    """Skip a video if more than this share of its neighbouring frames show the same picture: a song over one picture,
    for example. A talking head stays, and so do slides if one in 20 neighbouring frames differs. 1 keeps all."""
    min_words_per_minute: float = 4.0
    """Skip a video with fewer words a minute. A segment lasts at most 15 s, so with fewer than 4 the average segment
    has no word at all. 0 keeps all."""
    languages: tuple[str, ...] = ()
    """Skip a video whose words are in none of these languages: codes or names such as en, deu, German; regions do not
    count. The label of its transcript decides, or else its words. Empty keeps all."""
    duplicates: bool = True
    """Of videos with the same words and the same pictures, keep only the one with the most segments."""

    def __post_init__(self) -> None:
        check_range(self, "filter", 0, 1, "max_static_share")
        check_range(self, "filter", 0, math.inf, "min_words_per_minute")
        if not all(language.strip() for language in self.languages):
            raise ValueError(f"filter.languages must hold codes or names of languages; got {list(self.languages)}")
