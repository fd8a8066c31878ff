"""Batches of a dataset, in an order that depends on nothing but the seed, and that can be resumed anywhere."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from reserve.config import DataConfig, ModelConfig
from reserve.data.dataset import MaskedExample, PretrainDataset, as_tensors
from reserve.data.errors import BadInput
from reserve.data.vocabulary import PAD
from reserve.model.batch import BatchChoices, PretrainBatch, keep_spans, pack_batch, span_streams


class BatchSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of (epoch, index) for one of `world_size` ranks.

    Every epoch is a new permutation of the examples, cut into batches of `batch_size` a rank; what does not fill a
    batch on every rank is left for another epoch, so that no batch holds an example twice. `start_batch` skips ahead
    at no cost.
    """

    def __init__(
        self,
        num_examples: int,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"train.batch_size must be at least 1; got {batch_size}")
        self.batches_per_epoch = num_examples // (batch_size * world_size)
        if self.batches_per_epoch == 0:
            raise ValueError(
                f"train.batch_size {batch_size} on {world_size} device(s) needs {batch_size * world_size} examples; "
                f"the videos give {num_examples}"
            )
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed
        self.rank, self.world_size, self.start_batch = rank, world_size, start_batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, first = divmod(self.start_batch, self.batches_per_epoch)
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_examples)
            for batch in range(first, self.batches_per_epoch):
                start = (batch * self.world_size + self.rank) * self.batch_size
                yield [(epoch, int(index)) for index in order[start : start + self.batch_size]]
            epoch, first = epoch + 1, 0


def collate(
    examples: Sequence[MaskedExample], data: DataConfig, model: ModelConfig, *, keep_every_span: bool = False
) -> PretrainBatch:
    """Packs examples into a batch. With `keep_every_span`, all spans that can be predicted are, for evaluation."""
    images, clips = as_tensors(examples)
    texts = [example.text for example in examples]
    spans = np.stack([text.text_spans for text in texts])
    noise = np.stack([example.span_noise for example in examples])
    kept = keep_spans(span_streams(texts), spans, noise, None if keep_every_span else data.num_text_spans_to_include)
    # Spans of one length side by side: the span encoder then runs each length as one batch, without copies.
    kept = kept[np.argsort((spans.reshape(-1, spans.shape[-1])[kept] != PAD).sum(-1), kind="stable")]
    choices = BatchChoices(
        text2audio_source=np.stack([example.text2audio_source for example in examples]),
        audio2text_source=np.stack([example.audio2text_source for example in examples]),
        kept_spans=kept,
    )
    return pack_batch(images, clips, texts, choices, data, model)


class Examples(Protocol):
    """What batches are made of: examples by (epoch, index), and the configuration they were made for."""

    data: DataConfig
    model: ModelConfig

    def __getitem__(self, key: tuple[int, int], /) -> MaskedExample: ...


def training_loader(
    dataset: Examples, sampler: BatchSampler, *, num_workers: int, pin_memory: bool = False
) -> Iterator[PretrainBatch]:
    """Loads the sampler's batches, in `num_workers` processes (0: in this one). BadInput where a store is damaged."""
    loader: DataLoader[Any] = DataLoader(
        _Told(dataset),  # type: ignore[arg-type]  # of Dataset it needs no more than the protocol
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=partial(_collate_told, data=dataset.data, model=dataset.model),
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        multiprocessing_context="spawn" if num_workers else None,
        worker_init_fn=_start_worker,
    )
    for batch in loader:
        if isinstance(batch, BadInput):
            raise batch
        yield batch


@dataclass(frozen=True)
class _Told:
    """Examples of which a bad one is answered by its BadInput: what a loading process raises, torch wraps in the text
    of a traceback."""

    examples: Examples

    def __getitem__(self, key: tuple[int, int]) -> MaskedExample | BadInput:
        try:
            return self.examples[key]
        except BadInput as error:
            return error


def _collate_told(
    examples: Sequence[MaskedExample | BadInput], data: DataConfig, model: ModelConfig
) -> PretrainBatch | BadInput:
    good = [example for example in examples if isinstance(example, MaskedExample)]
    bad = [example for example in examples if isinstance(example, BadInput)]
    return bad[0] if bad else collate(good, data, model)


def evaluation_batches(dataset: PretrainDataset, batch_size: int, epoch: int = 0) -> Iterator[PretrainBatch]:
    """Every example of the dataset once, in order, masked as in `epoch`, with every span that can be predicted."""
    for start in range(0, len(dataset), batch_size):
        indices = range(start, min(start + batch_size, len(dataset)))
        yield collate([dataset[epoch, index] for index in indices], dataset.data, dataset.model, keep_every_span=True)


def _start_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C goes to the whole process group, and job schedulers send SIGTERM to all of a job; the trainer decides, and
    # still needs its batches to finish the step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()


def _end_when_told(trainer: int) -> None:
    """Ends the process at a SIGTERM of the trainer's, such as it sends at its exit, and at nobody else's."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(128 + signal.SIGTERM)
