"""Finetuning on TVQA (SPEC 10.8)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch.distributed as dist

from reserve.config import TrainConfig
from reserve.data.tokenizer import Tokenizer
from reserve.errors import BadInput
from reserve.model.finetuned import FinetunedReserve
from reserve.model.flops import Workload, encoding_workload
from reserve.tasks.data_folder import FolderCheck
from reserve.tasks.finetuning import Finetune, predict
from reserve.tasks.record_cache import RecordCache
from reserve.tasks.scores import TaskScores
from reserve.tasks.stored_sound import SUBSEGMENTS
from reserve.tasks.task import HeldOut, Loss
from reserve.tasks.tvqa.annotations import Questions
from reserve.tasks.tvqa.batch import AnswerBatch, Example, answer_loss, answer_probabilities, answer_scores, collate
from reserve.tasks.tvqa.clip_files import ClipFiles
from reserve.tasks.tvqa.dataset import TvqaDataset, TvqaSettings
from reserve.tasks.tvqa.predictions import KINDS, Submission, TvqaPrediction, tvqa_scores, write_predictions
from reserve.tasks.tvqa.sequences import AUDIO_TOKENS
from reserve.tasks.tvqa.stored import VERSION, prepare_question
from reserve.tasks.tvqa.subtitles import clean_text

logger = logging.getLogger(__name__)

EXAMPLES = "examples"
"""Folder of prepared questions in a run."""
USABLE = "usable_train.npy"
_PREPARED_BY_CHECK = 3


@dataclass(frozen=True)
class Tvqa(Finetune[Example, AnswerBatch]):
    """TVQA: of five answers to a question about a clip choose the right one, once with its sound and once with its
    subtitles.

    With `as_released`, the gradients of a device's examples are summed, as by `scan_minibatch`, not averaged: the
    gradient grows with the examples of a device.
    """

    name = "tvqa"
    shown_metrics: ClassVar[tuple[str, ...]] = ("loss", "accuracy_audio", "accuracy_text", "accuracy_joint")
    epochs = 3
    learning_rate = 5e-6

    examples: TvqaSettings = field(default_factory=TvqaSettings)
    submission: Submission = field(default_factory=Submission)

    def __post_init__(self) -> None:
        if not self.model.with_audio or self.model.outputs != 1:
            raise ValueError(
                "model.with_audio must be true and model.outputs 1 for TVQA; got "
                f"{self.model.with_audio} and {self.model.outputs}"
            )
        if self.model.audio_token_length * SUBSEGMENTS != AUDIO_TOKENS:
            raise ValueError(
                f"model.audio_token_length must be {AUDIO_TOKENS // SUBSEGMENTS} for TVQA; got "
                f"{self.model.audio_token_length}"
            )

    def check(self, splits: Sequence[str]) -> FolderCheck:
        clean_text("")  # names the extra to install
        report = FolderCheck()
        for split in splits:
            report.attempt(lambda split: self._check_split(split, report), split)
        return report

    def _check_split(self, split: str, report: FolderCheck) -> None:
        files, questions = ClipFiles(self.data), list(Questions(self.data, split))
        missing = files.missing(questions)
        report.lines.append(f"{split}: {len(questions)} questions about {missing.clips} clips")
        report.lines += [f"{split}: {line}" for line in missing.counts()]
        report.problems += [f"{split}: {reason}" for reason in missing.reasons()]
        complete = [question for question in questions if question.vid_name not in missing.clips_without]
        for question in complete[:_PREPARED_BY_CHECK]:
            report.attempt(lambda question: prepare_question(question, files), question)

    def left_out(self, split: str) -> list[str]:
        return self._usable(split)[1]

    def count_examples(self) -> int:
        return len(self._usable("train")[0])

    def prepare(self, run: Path, config: TrainConfig) -> None:
        """Finds the questions whose clips are complete. Each is prepared when it is first needed."""
        if self.as_released and config.accumulate > 1:
            raise ValueError(
                "as_released sums the gradients of a device's examples, which train.accumulate would average again: it "
                f"must be 1; got {config.accumulate}"
            )
        clean_text("")
        Tokenizer.load(self.tokenizer)
        usable, notes = self._usable("train")
        for note in notes:
            logger.warning("%s", note)
        np.save(run / USABLE, usable)

    def training_set(self, run: Path, config: TrainConfig) -> TvqaDataset:
        usable = np.load(run / USABLE, allow_pickle=False)
        return self._dataset("train", usable, run / EXAMPLES, seed=config.seed, training=True)

    def collate(self, examples: Sequence[Example]) -> AnswerBatch:
        return collate(examples, self.model)

    def loss(self, model: FinetunedReserve, batch: AnswerBatch, group: dist.ProcessGroup | None) -> Loss:
        loss = answer_loss(answer_scores(model, batch), batch.labels)
        metrics = {"loss": loss.mean.detach()} | loss.metrics()
        return Loss(loss.mean * len(batch) if self.as_released else loss.mean, metrics)

    def workload(self, batch: AnswerBatch) -> Workload:
        return encoding_workload(self.model, batch)

    def evaluate_split(
        self, model: FinetunedReserve, held_out: HeldOut, *, config: TrainConfig, step: int
    ) -> TaskScores:
        """The accuracies where the split has labels, and the leaderboard's files below `held_out.folder`.

        Questions whose clips are incomplete are left out; the notes count them.
        """
        indices, notes = self._usable(held_out.split)
        dataset = self._dataset(held_out.split, indices, held_out.folder / EXAMPLES, training=False)
        predictions: list[TvqaPrediction] = []
        for answers in predict(model, dataset, self.collate, _answers, config):
            for row in range(len(answers["joint"])):
                q = dataset.question(len(predictions))
                chosen = {kind: int(answers[kind][row]) for kind in KINDS}
                predictions.append(TvqaPrediction(q.qid, q.vid_name, chosen, q.label))
        # A submission joins the predictions of two splits, which must be of one model.
        folder = held_out.folder / f"step_{step}_{weights_digest(model)}"
        written = write_predictions(folder, held_out.split, predictions, self.submission)
        scores = tvqa_scores(predictions) if held_out.split != "test" else ()
        notes += [f"predictions: {path}" for path in written]
        return TaskScores(self.name, held_out.split, scores, tuple(notes), step)

    def _usable(self, split: str) -> tuple[np.ndarray, list[str]]:
        """Indices of the questions of a split whose clips are complete, and why others are left out."""
        questions = list(Questions(self.data, split))
        missing = ClipFiles(self.data).missing(questions)
        usable = [index for index, q in enumerate(questions) if q.vid_name not in missing.clips_without]
        if not usable:
            raise BadInput(
                f"{self.data} has all files of no clip of the split {split}: " + "; ".join(missing.reasons())
            )
        left_out = len(questions) - len(usable)
        notes = [f"{left_out} of {len(questions)} questions of the split {split} are left out"] if left_out else []
        return np.array(usable, dtype=np.int64), notes + missing.reasons()

    def _dataset(self, split: str, indices: np.ndarray, cache: Path, *, seed: int = 0, training: bool) -> TvqaDataset:
        return TvqaDataset(
            Questions(self.data, split),
            indices,
            ClipFiles(self.data),
            RecordCache(self.examples.cache or cache, VERSION),
            Tokenizer.load(self.tokenizer),
            self.model,
            self.examples,
            seed=seed,
            training=training,
        )


def weights_digest(model: FinetunedReserve) -> str:
    """Eight hexadecimal digits that tell finetuned models apart: training moves every number of the head."""
    weight = model.proj.weight.detach().float().cpu()
    return hashlib.sha256(weight.numpy().tobytes()).hexdigest()[:8]


def _answers(model: FinetunedReserve, batch: AnswerBatch) -> dict[str, np.ndarray]:
    """The chosen answers by kind: int64 [questions] each."""
    probabilities = answer_probabilities(answer_scores(model, batch))
    return {kind: probabilities[kind].argmax(-1).cpu().numpy() for kind in KINDS}
