"""Finetuning on Kinetics-600 (SPEC 10.9)."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F

from reserve.config import MEL_CHANNELS, TrainConfig
from reserve.errors import BadInput
from reserve.fs import write_text_atomic
from reserve.model.finetuned import FinetunedReserve
from reserve.model.flops import Workload, encoding_workload
from reserve.tasks.data_folder import FolderCheck
from reserve.tasks.finetuning import Finetune, predict
from reserve.tasks.kinetics600.annotations import label_table, usable_clips
from reserve.tasks.kinetics600.batch import ClipBatch, Example, class_scores, collate
from reserve.tasks.kinetics600.dataset import KineticsDataset
from reserve.tasks.kinetics600.predictions import best_classes, kinetics_scores, write_predictions
from reserve.tasks.kinetics600.stored import VERSION, KineticsSettings, prepare_clip
from reserve.tasks.record_cache import RecordCache
from reserve.tasks.scores import TaskScores
from reserve.tasks.task import HeldOut, Loss

logger = logging.getLogger(__name__)

EXAMPLES = "examples"
"""Folder of prepared clips in a run."""
CLIPS = "train_clips.json"
"""The clips and classes that a run trains on."""
_PREPARED_BY_CHECK = 3


@dataclass(frozen=True)
class Kinetics600(Finetune[Example, ClipBatch]):
    """Kinetics-600: what people do in a clip of ten seconds, with or without its sound.

    The release has no code for it. The classes are those of the training set, sorted, or of `labels.txt` in the data
    set's folder; `model.with_audio` decides whether clips are heard. A clip without sound is seen only.
    """

    name = "kinetics600"
    epochs = 10
    learning_rate = 1e-5

    examples: KineticsSettings = field(default_factory=KineticsSettings)

    def __post_init__(self) -> None:
        if self.as_released:
            raise ValueError("as_released must be false for kinetics600, whose code was never released; got true")

    def fitted_to_data(self) -> Self:
        return replace(self, model=replace(self.model, outputs=len(label_table(self.data))))

    def check(self, splits: Sequence[str]) -> FolderCheck:
        try:
            labels = label_table(self.data)
        except BadInput as error:
            return FolderCheck(problems=[str(error)])
        report = FolderCheck([f"{len(labels)} classes, from {labels[0]} to {labels[-1]}"])
        for split in splits:
            report.attempt(lambda split: self._check_split(split, labels, report), split)
        return report

    def _check_split(self, split: str, labels: Sequence[str], report: FolderCheck) -> None:
        clips = usable_clips(self.data, split, labels)
        report.lines.append(f"{split}: {len(clips.paths)} clips")
        report.problems += clips.notes
        for path in clips.paths[:_PREPARED_BY_CHECK]:
            report.attempt(lambda path: prepare_clip(path, self.examples), path)

    def left_out(self, split: str) -> list[str]:
        return usable_clips(self.data, split, self._labels()).notes

    def count_examples(self) -> int:
        return len(usable_clips(self.data, "train", label_table(self.data)).paths)

    def prepare(self, run: Path, config: TrainConfig) -> None:
        """Finds the clips that are there and records them. Each is prepared when it is first needed."""
        labels = self._labels()
        clips = usable_clips(self.data, "train", labels)
        for note in clips.notes:
            logger.warning("%s", note)
        names = [str(path.relative_to(self.data)) for path in clips.paths]
        write_text_atomic(run / CLIPS, json.dumps({"clips": names, "labels": clips.labels}) + "\n")

    def training_set(self, run: Path, config: TrainConfig) -> KineticsDataset:
        recorded = json.loads((run / CLIPS).read_text("utf-8"))
        paths = [self.data / name for name in recorded["clips"]]
        return self._dataset(paths, recorded["labels"], run / EXAMPLES, seed=config.seed, training=True)

    def collate(self, examples: Sequence[Example]) -> ClipBatch:
        """A batch to train on. Without any sound it holds a clip of zeros that no sequence refers to.

        Ranks that share a model must all run the audio encoder.
        """
        batch = collate(examples, self.model)
        if batch.audio_clips is None and self.model.with_audio:
            batch.audio_clips = torch.zeros(1, 1, 1, 1, self.model.audio_seq_length, MEL_CHANNELS)
        return batch

    def loss(self, model: FinetunedReserve, batch: ClipBatch, group: dist.ProcessGroup | None) -> Loss:
        scores = class_scores(model, batch)[:, 0]
        accuracy = (scores.argmax(-1) == batch.labels).float().mean()
        return Loss(F.cross_entropy(scores, batch.labels), {"accuracy": accuracy})

    def workload(self, batch: ClipBatch) -> Workload:
        return encoding_workload(self.model, batch)

    def evaluate_split(
        self, model: FinetunedReserve, held_out: HeldOut, *, config: TrainConfig, step: int
    ) -> TaskScores:
        """Top-1 and top-5 accuracy where the split has labels, and the best classes of each clip in
        `held_out.folder`. Clips that are missing or cannot be read are left out; the notes count them."""
        labels = self._labels()
        clips = usable_clips(self.data, held_out.split, labels)
        dataset = self._dataset(clips.paths, clips.labels, held_out.folder / EXAMPLES, training=False)
        predictions, seen = [], 0
        for probabilities, readable in predict(
            model, dataset, partial(collate, model=self.model), _probabilities, config
        ):
            for row, good in zip(probabilities, readable, strict=True):
                if good:
                    predictions.append(best_classes(clips.names[seen], row, clips.labels[seen]))
                seen += 1
        path = held_out.folder / f"kinetics600_{held_out.split}.json"
        write_predictions(path, predictions, labels)
        notes = [*clips.notes, f"{self.examples.views} views of each clip are averaged"]
        if seen > len(predictions):
            notes.append(f"{seen - len(predictions)} clips cannot be read; the log names them")
        notes.append(f"predictions: {path}")
        has_labels = any(prediction.label >= 0 for prediction in predictions)
        scores = kinetics_scores(predictions, len(labels)) if has_labels else ()
        return TaskScores(self.name, held_out.split, scores, tuple(notes), step)

    def _labels(self) -> list[str]:
        """The classes. Raises ValueError if the model has another number of them."""
        labels = label_table(self.data)
        if len(labels) != self.model.outputs:
            raise ValueError(
                f"model.outputs must be {len(labels)}, the classes of {self.data}; got {self.model.outputs}"
            )
        return labels

    def _dataset(
        self, paths: Sequence[Path], labels: Sequence[int], cache: Path, *, seed: int = 0, training: bool
    ) -> KineticsDataset:
        cache = self.examples.cache or cache
        return KineticsDataset(
            paths, labels, RecordCache(cache, VERSION), self.model, self.examples, seed=seed, training=training
        )


def _probabilities(model: FinetunedReserve, batch: ClipBatch) -> tuple[np.ndarray, np.ndarray]:
    """The mean probabilities over the views, float32 [B, classes], and which clips could be read, bool [B]."""
    probabilities = class_scores(model, batch).softmax(-1).mean(1)
    return probabilities.cpu().numpy(), batch.is_readable.cpu().numpy()
