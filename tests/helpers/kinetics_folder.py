"""A small folder in the layout of Kinetics-600: clips of one colour and one tone for each label."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reserve.config import FinetunedConfig
from tests.helpers.media_files import Sound, write_media

LABELS = {"archery": ((220, 30, 30), 300), "zumba": ((30, 30, 220), 2000), "acting in play": ((30, 200, 30), 800)}
"""Colour and frequency of each label."""
SECONDS = 10
SIZES = FinetunedConfig(
    hidden_size=64,
    vit_num_layers=1,
    output_grid=(2, 4),
    audio_num_layers=1,
    joint_num_layers=1,
    init_scale=5.0,
    outputs=len(LABELS),
)


def write_kinetics(folder: Path, *, silent: Sequence[str] = ("zumba",)) -> Path:
    """Writes two clips of each label for train, in folders by label, and one for val and test, in flat folders. The
    labels `silent` have no sound."""
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        rows = []
        for label, (colour, frequency) in LABELS.items():
            for number in range(count):
                start = 100 + 10 * number
                youtube_id = f"{split}-_{label[:4].replace(' ', '_')}_"
                rows.append((label, youtube_id, start, start + SECONDS, split))
                within = folder / split / label if split == "train" else folder / split
                path = within / f"{youtube_id}_{start:06d}_{start + SECONDS:06d}.mp4"
                write_clip(path, colour, None if label in silent else frequency)
        write_rows(folder / f"kinetics-600_{split}.csv", rows)
    return folder


def write_rows(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("label", "youtube_id", "time_start", "time_end", "split"), *rows])


def write_clip(path: Path, colour: Sequence[int], frequency: int | None, seconds: float = SECONDS) -> Path:
    """Pictures of one colour that gets brighter with time, and a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = 22050

    def picture(number: int) -> np.ndarray:
        level = 0.5 + 0.5 * number / (4 * SECONDS)
        return np.broadcast_to((level * np.array(colour)).astype(np.uint8), (48, 80, 3)).copy()

    times = [number / 4 for number in range(round(4 * seconds))]
    sounds = []
    if frequency is not None:
        tone = 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
        sounds = [Sound(tone.astype(np.float32), rate=rate)]
    return write_media(path, frame_times=times, picture=picture, sounds=sounds)
