"""A second task, whole: a classifier on the joint output at MASK. Is the first word of a question an even token?"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from reserve.batch.inputs import ModelInputs
from reserve.batch.packing import pack_joint
from reserve.batch.streams import JointStream
from reserve.batch.vocabulary import MASK
from reserve.config import ModelConfig
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.task import Figures, Loss, Task


@dataclass(frozen=True)
class ClassifierConfig(ModelConfig):
    num_classes: int = 2
    dropout: float = 0.0


class Classifier(MerlotReserve):
    config_class = ClassifierConfig

    def __init__(self, config):
        super().__init__(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_classes)

    def forward(self, batch):
        rows = super().forward(batch).joint[batch.mask_rows]
        return self.classifier(functional.dropout(rows, self.config.dropout, self.training))


@dataclass
class QuestionBatch(ModelInputs):
    mask_rows: torch.Tensor
    labels: torch.Tensor


class Questions(list):
    def __getitem__(self, key):  # (epoch, index)
        return super().__getitem__(key[1])


@dataclass(frozen=True)
class Classify(Task[np.ndarray, QuestionBatch]):
    name = "classify"
    finetuning = True
    shown_metrics = ("loss", "accuracy")
    model: ClassifierConfig = field(default_factory=ClassifierConfig)

    def build_model(self):
        return Classifier(self.model)

    def training_set(self, run, config):
        words = np.random.default_rng(config.seed).integers(10, 32, (16, 3))
        return Questions(np.array([*question, MASK]) for question in words)

    def collate(self, questions):
        ids, n = np.stack(questions), len(questions)
        stream = JointStream("question", ids, 0 * ids, 0 * ids, np.arange(n), np.arange(n)[:, None])
        joint = pack_joint([stream], subsegments=3, audio_tokens=6, pooled_grid=self.model.pooled_grid)
        images = torch.full((n, *self.model.image_size, 3), 128, dtype=torch.uint8)
        rows = torch.from_numpy(joint.rows["question"][:, -1])
        return QuestionBatch(images, None, joint, None, rows, torch.from_numpy(ids[:, 0] % 2))

    def loss(self, model, batch, group):
        logits = model(batch).float()
        loss = nn.functional.cross_entropy(logits, batch.labels)
        accuracy = (logits.argmax(1) == batch.labels).float().mean()
        return Loss(loss, {"loss": loss.detach(), "accuracy": accuracy})

    @torch.no_grad()
    def evaluate(self, model, held_out, *, config, step):
        questions = self.training_set(held_out.folder, config)
        accuracy = self.loss(model, self.collate(list(questions)), None).metrics["accuracy"]
        return Figures(step, {"accuracy": float(accuracy)})
