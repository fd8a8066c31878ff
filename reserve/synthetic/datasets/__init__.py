"""Small data sets in the formats of the seven downstream tasks, made from the videos of `reserve demo-data`.

Every question can be answered from its video: what is asked is what the scene shows, and wrong choices do not hold.
The same videos, number of questions and seed give the same questions; encoded media also depend on FFmpeg's version.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reserve.synthetic.datasets import epic_kitchens, kinetics600, lsmdc, msrvtt_qa, star, tvqa, vcr
from reserve.synthetic.datasets.scenes import read_stories

DATA_SETS: dict[str, Callable[..., dict[str, int]]] = {
    "vcr": vcr.write,
    "tvqa": tvqa.write,
    "kinetics600": kinetics600.write,
    "star": star.write,
    "epic-kitchens": epic_kitchens.write,
    "lsmdc": lsmdc.write,
    "msrvtt-qa": msrvtt_qa.write,
}
"""Writes the data set of each task; see `make_data_set`."""


def make_data_set(
    task: str, videos: str | Path, out: str | Path, *, questions: int = 20, seed: int = 0
) -> dict[str, int]:
    """Writes a data set for `task`, a key of DATA_SETS, into the folder `out`; returns how much of what it wrote.

    `videos` is a folder of `reserve demo-data`: `train` becomes the training split, `heldout` validation and test.
    `questions` is the number of questions about each video; of clips that must differ there may be fewer. Raises
    ValueError for an unknown task or a number below 1, and BadInput if `videos` cannot be used.
    """
    if task not in DATA_SETS:
        raise ValueError(f"task must be one of {', '.join(DATA_SETS)}; got {task!r}")
    if questions < 1:
        raise ValueError(f"questions must be at least 1; got {questions}")
    return DATA_SETS[task](read_stories(Path(videos)), Path(out), questions=questions, seed=seed)
