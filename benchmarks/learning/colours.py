"""Data sets cut down to the questions about colours, which a model of the demo's size learns to answer in minutes."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.learning.finetuned import TVQA, VCR

FILES = {TVQA: "tvqa_qa_release/*.jsonl", VCR: "*.jsonl"}
"""The annotations of a data set, a JSON value a line."""
QUESTION = {TVQA: "q", VCR: "question"}
"""The field with the question: a text, or a list of words and of lists of objects."""


def keep_colours(task: str, data: Path) -> None:
    """Drops the other questions from the files of all splits. Raises ValueError for a file without any of colours."""
    for path in sorted(data.glob(FILES[task])):
        lines = path.read_text("utf-8").splitlines(keepends=True)
        kept = [line for line in lines if "colour" in json.loads(line)[QUESTION[task]]]
        if not kept:
            raise ValueError(f"{path} has no questions about colours")
        path.write_text("".join(kept), "utf-8")
