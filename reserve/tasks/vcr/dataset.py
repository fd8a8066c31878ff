"""VCR's questions as examples: the picture with its boxes, and a sequence for each choice (SPEC 10.7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reserve.batch.inputs import ModelInputs
from reserve.batch.packing import pack_joint
from reserve.batch.streams import JointStream
from reserve.config import ModelConfig
from reserve.data.float_images import STORED_QUALITY, finetuning_image, stored_size
from reserve.data.images import decode_jpeg, encode_jpeg, read_picture, resize
from reserve.data.tokenizer import Tokenizer
from reserve.tasks.choices import mask_rows, masked_sequence
from reserve.tasks.finetuning import check_scales
from reserve.tasks.vcr.annotations import (
    CHOICES,
    IMAGES,
    Objects,
    Question,
    Questions,
    check_references,
    read_objects,
)
from reserve.tasks.vcr.boxes import draw_boxes, drawn_boxes, mirrored
from reserve.tasks.vcr.text import (
    ANSWER_PREFIX,
    RATIONALE_PREFIX,
    mentions_a_side,
    object_names,
    rationale_query,
    sentence,
)

MIRROR_PROBABILITY = 0.5


@dataclass(frozen=True)
class VcrSettings:
    """How VCR's questions become examples (SPEC 10.7)."""

    lang_seq_len: int = 144
    """Language tokens of a sequence: the query, a choice and MASK. Longer ones are cut."""
    random_scale_min: float = 1.0
    """Smallest factor on the size that a training picture is resized to, before it is cropped at random."""
    random_scale_max: float = 1.1
    """Largest such factor."""

    def __post_init__(self) -> None:
        if self.lang_seq_len < 2:
            raise ValueError(f"examples.lang_seq_len must be at least 2; got {self.lang_seq_len}")
        check_scales(self.random_scale_min, self.random_scale_max)


@dataclass
class VcrExample:
    """`image` float32 [height, width, 3]. `sequences` int32 [problems, 4, length]: the answers, then the rationales,
    given the right answer or each of the four where it is not known. `labels` int64 [problems], -1 if unknown."""

    image: np.ndarray
    sequences: np.ndarray
    labels: np.ndarray


@dataclass
class VcrBatch(ModelInputs):
    """Inputs with `images` [B, height, width, 3]; `rows` int64 [B * problems * 4] of the MASKs; `labels` int64
    [B, problems]."""

    rows: torch.Tensor
    labels: torch.Tensor


class VcrDataset:
    """The questions of a split, asked for as (epoch, index).

    With `training`, pictures are resized and cropped at random, and mirrored with probability 0.5 where no text
    mentions a side: a function of (seed, epoch, index).

    `indices` are those of the questions to use. `as_released` mirrors the boxes alone, as the released code does.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        tokenizer: Tokenizer,
        settings: VcrSettings,
        model: ModelConfig,
        *,
        indices: np.ndarray | None = None,
        training: bool = False,
        as_released: bool = False,
        seed: int = 0,
    ) -> None:
        self.images = folder / IMAGES
        self.questions = Questions(folder, split)
        self.indices = np.arange(len(self.questions)) if indices is None else indices
        self.tokenizer, self.settings, self.model = tokenizer, settings, model
        self.training, self.as_released, self.seed = training, as_released, seed

    def __len__(self) -> int:
        return len(self.indices)

    def question(self, index: int) -> Question:
        return self.questions[int(self.indices[index])]

    def __getitem__(self, key: tuple[int, int]) -> VcrExample:
        epoch, index = key
        question = self.question(index)
        objects = read_objects(self.images / question.metadata)
        check_references(question, objects)
        rng = np.random.default_rng([self.seed, epoch, index]) if self.training else None
        names = object_names(objects.names)
        sentences = [sentence(text, names) for text in question.texts]
        sequences = self._sequences(sentences, question.answer_label)
        known = self.questions.labelled
        labels = [question.answer_label, question.rationale_label] if known else [-1] * len(sequences)
        mirror = rng is not None and rng.random() < MIRROR_PROBABILITY and not mentions_a_side(sentences)
        return VcrExample(self._image(question, objects, mirror, rng), sequences, np.array(labels))

    def _image(self, question: Question, objects: Objects, mirror: bool, rng: np.random.Generator | None) -> np.ndarray:
        image = read_picture(self.images / question.image)
        image = resize(image, *stored_size(*image.shape[:2]))
        boxes = drawn_boxes(question, objects, image.shape[1])
        if mirror and self.as_released:
            image = draw_boxes(image, mirrored(boxes, image.shape[1]))
        else:
            image = draw_boxes(image, boxes)
            image = image[:, ::-1] if mirror else image
        # The reference trains on pictures that were stored as JPEG with their boxes.
        image = decode_jpeg(encode_jpeg(np.ascontiguousarray(image), STORED_QUALITY))
        scales = (self.settings.random_scale_min, self.settings.random_scale_max)
        return finetuning_image(image, self.model.image_size, rng=rng, scale_range=scales)

    def _sequences(self, sentences: Sequence[str], answer: int | None) -> np.ndarray:
        text, answers, rationales = sentences[0], sentences[1 : 1 + CHOICES], sentences[1 + CHOICES :]
        given = range(CHOICES) if answer is None else [answer]
        problems = [(text, ANSWER_PREFIX, answers)]
        problems += [(rationale_query(text, answers[index]), RATIONALE_PREFIX, rationales) for index in given]
        return np.stack([self._problem(*problem) for problem in problems])

    def _problem(self, query: str, prefix: str, choices: Sequence[str]) -> np.ndarray:
        start = self.tokenizer.encode_plain(query) + self.tokenizer.encode(prefix)
        return choice_sequences(start, [self.tokenizer.encode_plain(c) for c in choices], self.settings.lang_seq_len)


def choice_sequences(start: Sequence[int], choices: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """int32 [choices, length]: the tokens of the query and the separator, those of a choice, and MASK."""
    return np.stack([masked_sequence([*start, *choice], length) for choice in choices])


def collate(examples: Sequence[VcrExample], model: ModelConfig) -> VcrBatch:
    """A batch of examples with equally many problems: one picture for all sequences of an example."""
    sequences = np.stack([example.sequences for example in examples])
    each = sequences.shape[1] * sequences.shape[2]
    ids = sequences.reshape(-1, sequences.shape[-1])
    example = np.repeat(np.arange(len(examples)), each)
    stream = JointStream("choices", ids, np.full_like(ids, -1), np.zeros_like(ids), example, example[:, None])
    joint = pack_joint([stream], subsegments=1, audio_tokens=model.audio_token_length, pooled_grid=model.pooled_grid)
    return VcrBatch(
        images=torch.from_numpy(np.stack([example.image for example in examples])),
        audio_clips=None,
        joint=joint,
        spans=None,
        rows=torch.from_numpy(mask_rows(ids, joint.rows["choices"])),
        labels=torch.from_numpy(np.stack([example.labels for example in examples])),
    )
