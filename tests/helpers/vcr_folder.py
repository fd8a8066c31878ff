"""A folder in VCR's layout: pictures of two people, and questions whose right choice is always red."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reserve.config import FinetunedConfig
from reserve.data.tokenizer import Tokenizer

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (250, 250, 250)}
WIDTH, HEIGHT = 128, 96

SIZES = FinetunedConfig(
    hidden_size=64,
    vocab_size=Tokenizer.load().vocab_size,
    vit_num_layers=1,
    output_grid=(2, 4),
    audio_num_layers=1,
    span_num_layers=1,
    joint_num_layers=1,
    init_scale=5.0,
    with_audio=False,
)


def question(number: int, split: str, right: int) -> dict[str, Any]:
    """A question about the picture `number`, with the fields of VCR's files."""
    name = f"movie/{split}_{number}"
    colours = list(COLOURS)[-right:] + list(COLOURS)[:-right] if right else list(COLOURS)
    record: dict[str, Any] = {
        "movie": "movie",
        "objects": ["person", "person", "dog"],
        "img_fn": f"{name}.jpg",
        "metadata_fn": f"{name}.json",
        "question": ["What", "does", [0, 1], "see", "?"],
        "answer_choices": [["It", "is", colour, "."] for colour in colours],
        "rationale_choices": [[[1], "wears", colour, "."] for colour in colours],
        "annot_id": f"{split}-{number}",
        "img_id": f"{split}-{number}",
        "question_number": 0,
    }
    return record if split == "test" else record | {"answer_label": right, "rationale_label": right}


def write_vcr(folder: Path, *, questions: int = 4) -> Path:
    """Writes `questions` questions for each split; the right choice of number n is n modulo 4."""
    (folder / "vcr1images" / "movie").mkdir(parents=True)
    for split in ("train", "val", "test"):
        records = [question(number, split, number % 4) for number in range(questions)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")
        for number, record in enumerate(records):
            pixels = np.full((HEIGHT, WIDTH, 3), list(COLOURS.values())[number % 4], np.uint8)
            Image.fromarray(pixels).save(folder / "vcr1images" / record["img_fn"], quality=95)
            metadata = {
                "boxes": [[10, 20, 40, 90, 0.99], [60, 20, 100, 90, 0.98], [100, 60, 120, 80, 0.9]],
                "names": record["objects"],
                "segms": [[], [], []],
                "width": WIDTH,
                "height": HEIGHT,
            }
            (folder / "vcr1images" / record["metadata_fn"]).write_text(json.dumps(metadata), "utf-8")
    return folder
