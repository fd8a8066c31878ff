"""Vocabularies of answers: the options of tasks that have no choices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def answer_vocabulary(answers: Iterable[str], size: int) -> list[str]:
    """The most frequent answers, equally frequent ones in the order of their first appearance (SPEC 10.13).

    All answers that are at least as frequent as the `size`-th belong to it, so ties make it longer.
    """
    counts = Counter(answers).most_common()
    least = counts[min(size, len(counts)) - 1][1] if counts else 0
    return [answer for answer, count in counts if count >= least]
