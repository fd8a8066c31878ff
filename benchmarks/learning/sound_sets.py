"""Two small data sets of real sounds as the audio encoder's windows: ESC-10 and the Free Spoken Digit Dataset."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reserve.config import SEGMENT_SECONDS, DataConfig, ModelConfig
from reserve.data.decode import choose_file_decoder
from reserve.data.segment_sound import clip_log_mels
from reserve.tasks.pretrain.dataset import audio_clips
from reserve.tasks.pretrain.masking import inference_subsegment_starts

DIGIT_SPEAKERS = 2
"""Speakers of a rotation's test."""


@dataclass(frozen=True)
class Sounds:
    """Labelled clips: `windows` float32 [n, windows, 60, 65], the last channel the playback speed 1; `labels` int [n].

    `part` int [n] is the rotation in which a clip is tested and not trained on. `source` [n] names what clips have in
    common, such as their recording or speaker: they are not independent. No source is in two parts.
    """

    windows: torch.Tensor
    labels: np.ndarray
    part: np.ndarray
    source: np.ndarray

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    def rotations(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Indices to train on and to test on, for each part."""
        for part in np.unique(self.part):
            yield np.flatnonzero(self.part != part), np.flatnonzero(self.part == part)


def esc10(folder: Path, model: ModelConfig) -> Sounds:
    """ESC-10: clips of 5 s in three windows. Its folds are the parts; clips of one recording are in one fold."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    data = DataConfig()
    starts = inference_subsegment_starts(data, model.audio_seq_length)[0]
    classes = sorted({row["class"] for row in rows})
    return Sounds(
        _windows([folder / row["file"] for row in rows], starts, data, model),
        np.array([classes.index(row["class"]) for row in rows]),
        np.array([int(row["fold"]) for row in rows]),
        np.array(["-".join(row["file"].split("-")[:2]) for row in rows]),
    )


def fsdd(folder: Path, model: ModelConfig) -> Sounds:
    """Spoken digits, DIGIT_SPEAKERS of the speakers a part: the first window of each clip, silence after its end."""
    paths = sorted(folder.glob("*_*_*.wav"))
    digits, speakers = zip(*(path.stem.split("_")[:2] for path in paths), strict=True)
    names = sorted(set(speakers))
    return Sounds(
        _windows(paths, np.zeros(1, np.int64), DataConfig(), model),
        np.array([int(digit) for digit in digits]),
        np.array([names.index(speaker) // DIGIT_SPEAKERS for speaker in speakers]),
        np.array(speakers),
    )


SETS: dict[str, tuple[str, Callable[[Path, ModelConfig], Sounds]]] = {
    "ESC-10": ("esc10", esc10),
    "FSDD": ("fsdd", fsdd),
}
"""By name: the option that names the folder, and what reads it."""


def _windows(paths: Sequence[Path], starts: np.ndarray, data: DataConfig, model: ModelConfig) -> torch.Tensor:
    """Windows of files from mel frames `starts`, each as preparation makes a segment: its peak at 1, 5 s in all."""
    decoder = choose_file_decoder()
    length = int(data.sample_rate * SEGMENT_SECONDS)
    found = []
    for path in paths:
        with decoder.open(path) as media:
            track = media.soundtrack(sample_rate=data.sample_rate)
            sound = np.asarray(track.waveform[:length]) / track.peak()
        padded = torch.from_numpy(np.pad(sound, (0, length - len(sound))).astype(np.float32))
        log_mel = clip_log_mels(padded[None], 1, data).numpy()
        found.append(audio_clips(log_mel, np.ones(1), starts[None], model.audio_seq_length))
    return torch.from_numpy(np.stack(found))
