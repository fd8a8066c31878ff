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
from reserve.tasks.data_folder import FolderCheck, JsonLines, files_below
from reserve.tasks.finetuning import Finetune, predict
from reserve.tasks.scores import TaskScores
from reserve.tasks.task import HeldOut, Loss
from reserve.tasks.vcr.annotations import CHOICES, IMAGES, SOURCE, questions_file, read_objects, read_question
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

    @classmethod
    def model_config(cls, sizes: ModelConfig) -> FinetunedConfig:
        return replace(super().model_config(sizes), with_audio=False)

    def check(self, splits: Sequence[str]) -> FolderCheck:
        report = FolderCheck()
        present = files_below(self.data / IMAGES)
        for split in splits:
            path = self.data / questions_file(split).path
            if not path.is_file():
                report.missing(questions_file(split), self.data)
                continue
            needed: dict[str, str] = {}
            count = 0
            for record in JsonLines(path):
                question = read_question(record)
                needed[question.image] = question.metadata
                count += 1
            report.lines.append(f"{split}: {count} questions about {len(needed)} pictures")
            report.paths(f"{split} pictures", needed.keys(), present, self.data / IMAGES, SOURCE)
            report.paths(f"{split} metadata", set(needed.values()), present, self.data / IMAGES, SOURCE)
            for metadata in [m for m in dict.fromkeys(needed.values()) if m in present][:_CHECKED_METADATA]:
                report.attempt(read_objects, self.data / IMAGES / metadata)
        return report

    def _usable(self) -> np.ndarray:
        """Indices of the training questions whose picture and metadata are there. Logs how many are left out."""
        present = files_below(self.data / IMAGES)
        questions = [read_question(r) for r in JsonLines(questions_file("train").within(self.data))]
        usable = [i for i, q in enumerate(questions) if q.image in present and q.metadata in present]
        left_out = len(questions) - len(usable)
        if not usable:
            raise BadInput(f"{self.data / IMAGES} has none of the {len(questions)} pictures; they come from {SOURCE}")
        if left_out:
            first = next(q for q in questions if not (q.image in present and q.metadata in present))
            logger.warning("%d questions are left out, since their pictures are missing (%s, …)", left_out, first.image)
        return np.array(usable, dtype=np.int64)

    def count_examples(self) -> int:
        return len(self._usable())

    def prepare(self, run: Path, config: TrainConfig) -> None:
        Tokenizer.load(self.tokenizer)
        np.save(run / USABLE, self._usable())

    def training_set(self, run: Path, config: TrainConfig) -> VcrDataset:
        usable = np.load(run / USABLE, allow_pickle=False)
        return self._dataset("train", indices=usable, training=True, seed=config.seed)

    def _dataset(self, split: str, **options: Any) -> VcrDataset:
        tokenizer = Tokenizer.load(self.tokenizer)
        return VcrDataset(
            self.data, split, tokenizer, self.examples, self.model, as_released=self.as_released, **options
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

    def evaluate(self, model: FinetunedReserve, held_out: HeldOut, *, config: TrainConfig, step: int) -> TaskScores:
        """Accuracy where the split has labels, and files of probabilities in `held_out.folder`: the leaderboard's
        for a split without."""
        task = replace(self, data=Path(held_out.sources[0])) if held_out.sources else self
        dataset = task._dataset(held_out.split)
        predictions: list[VcrPrediction] = []
        for probabilities in predict(model, dataset, task.collate, _probabilities, config):
            for answers, *rationales in probabilities:
                q = dataset.question(len(predictions))
                given = rationales[0] if len(rationales) == 1 else np.stack(rationales)
                predictions.append(
                    VcrPrediction(q.annot_id, q.image, answers, given, q.answer_label, q.rationale_label)
                )
        labelled = all(p.rationales.ndim == 1 for p in predictions)
        path = held_out.folder / f"vcr_{held_out.split}.csv"
        (write_answers if labelled else write_submission)(path, predictions)
        scores = vcr_scores(predictions) if labelled else ()
        return TaskScores(self.name, held_out.split, scores, (f"predictions: {path}",), step)


def vcr_logits(model: FinetunedReserve, batch: VcrBatch) -> torch.Tensor:
    """The score of every choice: float32 [B, problems, 4]."""
    return model.scores(batch, batch.rows).view(*batch.labels.shape, CHOICES)


def _probabilities(model: FinetunedReserve, batch: VcrBatch) -> np.ndarray:
    return vcr_logits(model, batch).softmax(-1).cpu().numpy()
