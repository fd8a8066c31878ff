"""A few steps of a run, as the command line names them."""

from __future__ import annotations

import re

MOST_STEPS = 100
"""A profile of more would not fit into memory, nor into what shows it."""


def step_window(setting: str, text: str) -> range:
    """The steps FROM:TO, each by the number of steps finished before it; none for an empty text.

    Raises ValueError naming `setting` where they are written otherwise, none or more than MOST_STEPS.
    """
    if not text:
        return range(0)
    match = re.fullmatch(r"(\d{1,12}):(\d{1,12})", text, re.ASCII)
    steps = range(int(match[1]), int(match[2])) if match else range(0)
    if not 0 < len(steps) <= MOST_STEPS:
        raise ValueError(f"{setting} must be FROM:TO, such as 100:105, at most {MOST_STEPS} steps; got {text!r:.80}")
    return steps
