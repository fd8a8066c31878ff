"""Finetuning on VCR (SPEC 10.7)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F

from reserve.config import FinetunedConfig, ModelConfig, TrainConfig
from reserve.data.tokenizer import Tokenizer
from reserve.errors import BadInput
from reserve.model.finetuned import FinetunedReserve
from reserve.model.flops import Workload, encoding_workload
from reserve.tasks.data_folder import FolderCheck, files_below
from reserve.tasks.finetuning import Finetune, predict
from reserve.tasks.scores import TaskScores
from reserve.tasks.task import HeldOut, Loss
from reserve.tasks.vcr.annotations import CHOICES, IMAGES, SOURCE, Questions, read_objects
from reserve.tasks.vcr.dataset import VcrBatch, VcrDataset, VcrExample, VcrSettings, collate
from reserve.tasks.vcr.predictions import VcrPrediction, vcr_scores, write_answers, write_submission

logger = logging.getLogger(__name__)

USABLE = "usable_train.npy"
_CHECKED_METADATA = 20
"""Pictures whose metadata `check` reads."""


@dataclass(frozen=True)
class Vcr(Finetune[VcrExample, VcrBatch]):
    """VCR: of four answers to a question about a picture choose the right one, then of four rationales.

    With `as_released`, a mirrored training picture has its boxes mirrored and not its pixels, an oversight of the
    released code; without, both are.
    """

    name = "vcr"
    uses_every_parameter = False  # contrastive_scales, the picture's CLS projection
    epochs = 5
    learning_rate = 1e-5

    examples: VcrSettings = field(default_factory=VcrSettings)

    def __post_init__(self) -> None:
        if self.model.outputs != 1:
            raise ValueError(f"model.outputs must be 1 for VCR; got {self.model.outputs}")

    @classmethod
    def model_config(cls, sizes: ModelConfig) -> FinetunedConfig:
        return replace(super().model_config(sizes), with_audio=False)

    def check(self, splits: Sequence[str]) -> FolderCheck:
        report = FolderCheck()
        for split in splits:
            report.attempt(lambda split: self._check_split(split, report), split)
        return report

    def _check_split(self, split: str, report: FolderCheck) -> None:
        present = files_below(self.data / IMAGES)
        questions = Questions(self.data, split)
        needed = {question.image: question.metadata for question in questions}
        report.lines.append(f"{split}: {len(questions)} questions about {len(needed)} pictures")
        metadata = dict.fromkeys(needed.values())
        report.paths(f"{split} pictures", needed, present, self.data / IMAGES, SOURCE)
        report.paths(f"{split} metadata", metadata, present, self.data / IMAGES, SOURCE)
        for name in [name for name in metadata if name in present][:_CHECKED_METADATA]:
            report.attempt(read_objects, self.data / IMAGES / name)

    def _usable(self, split: str) -> tuple[np.ndarray, list[str]]:
        """Indices of the questions of a split whose picture and metadata are there, and how many are left out."""
        present = files_below(self.data / IMAGES)
        questions = Questions(self.data, split)
        usable, first_missing = [], ""
        for index, question in enumerate(questions):
            missing = [name for name in (question.image, question.metadata) if name not in present]
            if not missing:
                usable.append(index)
            first_missing = first_missing or (missing[0] if missing else "")
        left_out = len(questions) - len(usable)
        if not usable:
            raise BadInput(
                f"{self.data / IMAGES} has the picture and metadata of none of the {len(questions)} questions of the "
                f"split {split} ({first_missing}, …); they come from {SOURCE}"
            )
        reason = (
            f"{left_out} of {len(questions)} questions of the split {split} are left out, since their picture or "
            f"metadata is missing ({first_missing}, …)"
        )
        return np.array(usable, dtype=np.int64), [reason] if left_out else []

    def left_out(self, split: str) -> list[str]:
        return self._usable(split)[1]

    def count_examples(self) -> int:
        return len(self._usable("train")[0])

    def prepare(self, run: Path, config: TrainConfig) -> None:
        Tokenizer.load(self.tokenizer)
        usable, notes = self._usable("train")
        for note in notes:
            logger.warning("%s", note)
        np.save(run / USABLE, usable)

    def training_set(self, run: Path, config: TrainConfig) -> VcrDataset:
        usable = np.load(run / USABLE, allow_pickle=False)
        return self._dataset("train", usable, training=True, seed=config.seed)

    def _dataset(self, split: str, indices: np.ndarray, **options: Any) -> VcrDataset:
        return VcrDataset(
            self.data,
            split,
            Tokenizer.load(self.tokenizer),
            self.examples,
            self.model,
            indices=indices,
            as_released=self.as_released,
            **options,
        )

    def collate(self, examples: Sequence[VcrExample]) -> VcrBatch:
        return collate(examples, self.model)

    def loss(self, model: FinetunedReserve, batch: VcrBatch, group: dist.ProcessGroup | None) -> Loss:
        logits = vcr_logits(model, batch)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
        right = (logits.argmax(-1) == batch.labels).float().mean(0)
        return Loss(loss, {"accuracy": right.mean(), "q_to_a": right[0], "qa_to_r": right[1]})

    def workload(self, batch: VcrBatch) -> Workload:
        return encoding_workload(self.model, batch)

    def evaluate_split(
        self, model: FinetunedReserve, held_out: HeldOut, *, config: TrainConfig, step: int
    ) -> TaskScores:
        """Accuracy where the split has labels, and files of probabilities in `held_out.folder`: the leaderboard's
        for a split without. Questions whose picture is missing are left out; the notes count them."""
        indices, notes = self._usable(held_out.split)
        dataset = self._dataset(held_out.split, indices)
        predictions: list[VcrPrediction] = []
        for probabilities in predict(model, dataset, self.collate, _probabilities, config):
            for answers, *rationales in probabilities:
                q = dataset.question(len(predictions))
                given = rationales[0] if len(rationales) == 1 else np.stack(rationales)
                predictions.append(
                    VcrPrediction(q.annot_id, q.image, answers, given, q.answer_label, q.rationale_label)
                )
        labelled = dataset.questions.labelled
        path = held_out.folder / f"vcr_{held_out.split}.csv"
        (write_answers if labelled else write_submission)(path, predictions)
        scores = vcr_scores(predictions) if labelled else ()
        return TaskScores(self.name, held_out.split, scores, (*notes, f"predictions: {path}"), step)


def vcr_logits(model: FinetunedReserve, batch: VcrBatch) -> torch.Tensor:
    """The score of every choice: float32 [B, problems, 4]."""
    return model.scores(batch, batch.rows).view(*batch.labels.shape, CHOICES)


def _probabilities(model: FinetunedReserve, batch: VcrBatch) -> np.ndarray:
    return vcr_logits(model, batch).softmax(-1).cpu().numpy()
