"""Pretraining as a task: masked-out frames, sounds and text spans of narrated videos (SPEC 7-9)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist

from reserve.config import Config, DataConfig, FitConfig, ModelConfig, TrainConfig
from reserve.config.schema import check_data_fits_model
from reserve.data.collection import PartSet
from reserve.data.prepare import prepare_stores, recorded_stores
from reserve.data.sources.random_text import TextSource, open_text_source
from reserve.data.tokenizer import Tokenizer
from reserve.errors import BadInput, EnvironmentFailure
from reserve.model.flops import Workload
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.batch import PretrainBatch
from reserve.tasks.pretrain.dataset import Example, PretrainDataset, collate, collate_undecoded
from reserve.tasks.pretrain.evaluation import MASKINGS, Evaluation, evaluate
from reserve.tasks.pretrain.objective import PretrainPairs, pretrain_loss, pretrain_pairs, pretrain_workload
from reserve.tasks.pretrain.shard_sets import (
    absolute_place,
    check_weights,
    open_sets,
    part_sets,
    videos_among,
    videos_among_shards,
    videos_in,
    videos_of,
)
from reserve.tasks.pretrain.undecoded import Finisher, UndecodedBatch
from reserve.tasks.task import ContrastiveTask, HeldOut, Loss
from reserve_kernels.precision import autocast_off

logger = logging.getLogger(__name__)

VALIDATION_FOLDER = "validation"
"""Folder of a run where the videos of train.evaluate_every are prepared."""


@dataclass(frozen=True)
class Pretrain(ContrastiveTask[Example, PretrainBatch]):
    """Pretraining on narrated videos.

    `videos`: files and folders; `shards`: sets of prepared videos instead, folders or URLs, mixed by `shard_weights`
    (without weights they are one data set); `random_text`: a text or JSONL file (also .zst), or None for other videos'
    transcripts; `tokenizer`: a `tokenizers` JSON in the released layout, or None for the shipped one; `held_out` or
    `held_out_shards`: videos or sets of shards that train.evaluate_every evaluates on.
    """

    name = "pretrain"
    uses_every_parameter = True
    shown_metrics: ClassVar[tuple[str, ...]] = ("loss", "imgs_to_audio", "text_to_audio", "stuff_to_span")
    held_out_inputs = "--held_out or --held_out_shards"
    dataset_class: ClassVar[type[PretrainDataset]] = PretrainDataset
    """What masks the examples; a subclass may mask in another way."""

    videos: tuple[Path, ...] = ()
    random_text: Path | None = None
    tokenizer: Path | None = None
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    shards: tuple[str, ...] = ()
    shard_weights: tuple[float, ...] = ()
    held_out: tuple[Path, ...] = ()
    held_out_shards: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_data_fits_model(self.data, self.model)
        if self.videos and self.shards:
            raise ValueError("give videos or shards, not both: prepare the videos into a set of shards to mix them")
        if self.held_out and self.held_out_shards:
            raise ValueError("give held_out or held_out_shards, not both")
        check_weights(self.shards, self.shard_weights)
        for name in ("shards", "held_out_shards"):
            object.__setattr__(self, name, tuple(map(absolute_place, getattr(self, name))))

    @classmethod
    def of(
        cls,
        config: Config,
        videos: Sequence[str | Path] = (),
        random_text: Path | None = None,
        tokenizer: Path | None = None,
        *,
        shards: Sequence[str] = (),
        shard_weights: Sequence[float] = (),
        held_out: Sequence[str | Path] = (),
        held_out_shards: Sequence[str] = (),
    ) -> Pretrain:
        """Pretraining with the data and model sections of a whole configuration."""
        return cls(
            tuple(map(Path, videos)),
            random_text,
            tokenizer,
            config.data,
            config.model,
            tuple(shards),
            tuple(shard_weights),
            tuple(map(Path, held_out)),
            tuple(held_out_shards),
        )

    def whole_config(self, fit: FitConfig) -> Config:
        """The task's sections and the trainer's as one configuration."""
        return Config(data=self.data, model=self.model, optimizer=fit.optimizer, train=fit.train)

    def build_model(self) -> MerlotReserve:
        return MerlotReserve(self.model)

    def prepare(self, run: Path, config: TrainConfig) -> None:
        """Prepares the videos in the run's folder. Validates the other inputs first, since preparing can take hours."""
        Tokenizer.load(self.tokenizer)
        self._named_text(run)
        if self.shards:
            open_sets(self.shards, self.data, config)
            return
        prepare_stores(
            self.videos,
            run,
            self.data,
            workers=config.prepare_workers,
            seed=config.seed,
            audio_track=config.audio_track,
            decoder=config.decoder,
        )

    def training_set(self, run: Path, config: TrainConfig) -> PretrainDataset:
        decoded = config.decode_on == "loader"
        if self.shards:
            sets = part_sets(self.shards, self.shard_weights, self.data, config, spectrograms=decoded)
        else:
            sets = _stores(run)
        return self._dataset(sets, self._named_text(run), seed=config.seed, training=True, decoded=decoded)

    def collate(self, examples: Sequence[Example]) -> Any:
        if examples[0].encoded:
            return collate_undecoded(examples, self.data, self.model)
        return collate(examples, self.data, self.model)

    def finish(self, config: TrainConfig, device: torch.device) -> Callable[[UndecodedBatch], PretrainBatch] | None:
        return None if config.decode_on == "loader" else Finisher(self.data, self.model, device)

    def vectors(self, model: MerlotReserve, batch: PretrainBatch) -> dict[str, torch.Tensor]:
        pairs = pretrain_pairs(model, batch)
        return {
            **pairs.named(),
            "log_scales": model.contrastive_scales.clone(),
            "span_source": batch.targets.span_source,
        }

    def vectors_loss(self, parts: Sequence[Mapping[str, torch.Tensor]], group: dist.ProcessGroup | None) -> Loss:
        pairs, source = PretrainPairs.joined(parts), torch.cat([part["span_source"] for part in parts])
        # In float32, from predictions in the precision of the model.
        with autocast_off(source.device):
            loss = pretrain_loss(pairs, parts[0]["log_scales"], source, group=group)
        return Loss(loss.total, loss.metrics())

    def workload(self, batch: PretrainBatch) -> Workload:
        return pretrain_workload(self.model, batch)

    def held_out_data(self, run: Path) -> HeldOut | None:
        """The held-out inputs. Their folder is not that of `reserve evaluate`, which may use other videos meanwhile."""
        if not self.held_out and not self.held_out_shards:
            return None
        return HeldOut(tuple(map(str, self.held_out)), run / VALIDATION_FOLDER, shards=self.held_out_shards)

    def prepare_held_out(self, held_out: HeldOut, config: TrainConfig) -> None:
        """Prepares the held-out videos. Raises what `prepare` raises, and BadInput where they give no example."""
        Tokenizer.load(self.tokenizer)
        self._warn_of_training_videos(held_out, config)
        if not held_out.shards:
            held_out.folder.mkdir(parents=True, exist_ok=True)
            prepare_stores(
                held_out.sources,
                held_out.folder,
                self.data,
                workers=held_out.workers,
                seed=config.seed,
                audio_track=config.audio_track,
                decoder=config.decoder,
            )
        self._held_out_set(held_out, config)

    def evaluate(self, model: MerlotReserve, held_out: HeldOut, *, config: TrainConfig, step: int) -> Evaluation:
        """Ranks the true span, sound and frame of held-out videos among all candidates."""
        if not held_out.prepared:
            self.prepare_held_out(held_out, config)
        return evaluate(model, self._held_out_set(held_out, config), step=step, maskings=MASKINGS)

    def _held_out_set(self, held_out: HeldOut, config: TrainConfig) -> PretrainDataset:
        if held_out.shards:
            sets = part_sets(tuple(map(absolute_place, held_out.shards)), (), self.data, config)
        else:
            sets = _stores(held_out.folder)
        text = self._named_text(held_out.folder.parent)
        return self._dataset(sets, text, seed=held_out.seed, training=False)

    def _warn_of_training_videos(self, held_out: HeldOut, config: TrainConfig) -> None:
        """Warns if held-out videos were trained on, which would make their ranks meaningless."""
        try:
            if held_out.shards:
                videos = list(videos_of(open_sets(held_out.shards, self.data, config)))
            else:
                videos = list(videos_in(held_out.sources))
            if self.shards:
                shared = videos_among_shards(videos, open_sets(self.shards, self.data, config))
            else:
                shared = videos_among(videos, videos_in(self.videos))
        except (BadInput, EnvironmentFailure, ImportError, OSError, ValueError):
            return  # The training videos are out of reach or were prepared anew; other faults are reported later.
        if shared:
            logger.warning("%d of the videos to evaluate on were trained on, such as %s", len(shared), shared[0].file)

    def _named_text(self, cache: Path) -> TextSource | None:
        """The user's random text, or None. A compressed file is decompressed into `cache`."""
        return None if self.random_text is None else open_text_source(self.random_text, cache)

    def _dataset(
        self, sets: Sequence[PartSet], text: TextSource | None, *, seed: int, training: bool, decoded: bool = True
    ) -> PretrainDataset:
        tokenizer = Tokenizer.load(self.tokenizer)
        return self.dataset_class(
            sets, tokenizer, text, self.data, self.model, seed=seed, training=training, decoded=decoded
        )


def _stores(folder: Path) -> list[PartSet]:
    """The store files that were prepared in a folder."""
    return [PartSet.of_stores(recorded_stores(folder))]
