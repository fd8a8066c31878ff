"""Pretraining: from a folder of videos to a model, one step after another (SPEC 7-9)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from reserve.config import Config
from reserve.data.dataset import PretrainDataset
from reserve.data.loader import BatchSampler, training_loader
from reserve.data.record import prepare_and_record, recorded_stores
from reserve.data.text_source import TranscriptTextSource, open_text_source
from reserve.data.tokenizer import Tokenizer
from reserve.model.batch import PretrainBatch
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.objective import PretrainPairs, pretrain_loss, pretrain_pairs
from reserve.train.distributed import Ranks, joined_ranks
from reserve.train.metrics import Metrics, NoMetrics, preparation_progress
from reserve.train.optimizer import parameter_groups
from reserve.train.run_config import RunFiles, write_run_config
from reserve.train.schedule import learning_rate_scale
from reserve.train.state import list_checkpoints, load_trainer_state, save_checkpoint
from reserve.train.stopping import StopRequest
from reserve_kernels import BF16AdamW

logger = logging.getLogger(__name__)


class _Pairs(nn.Module):
    """The forward pass as a module, which DistributedDataParallel needs to average gradients."""

    def __init__(self, model: MerlotReserve) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PretrainBatch) -> PretrainPairs:
        return pretrain_pairs(self.model, batch)


def pretrain(files: RunFiles, config: Config) -> Path:
    """Trains until `config.optimizer.num_train_steps` or a signal, from the run's last checkpoint if it has one.

    Returns the last checkpoint's folder, which is also a pretrained model. Raises BadInput or NothingPrepared where the
    videos cannot be used, ValueError where the settings do not fit them or the checkpoint.
    """
    with joined_ranks(config.train.device) as ranks:
        goes_on = bool(list_checkpoints(files.out))
        if ranks.is_first and not goes_on:
            write_run_config(files, config)
        dataset = load_dataset(files, config, ranks)
        torch.manual_seed(config.train.seed)
        model = MerlotReserve(config.model).to(ranks.device)
        optimizer = make_optimizer(model, config)
        step = restore(files.out, model, optimizer)
        if ranks.is_first and goes_on:  # not before, so that settings that do not fit the checkpoint are not kept
            write_run_config(files, config)
        sampler = BatchSampler(
            len(dataset),
            _per_device(config.train.batch_size, ranks.world_size),
            seed=config.train.seed,
            rank=ranks.rank,
            world_size=ranks.world_size,
            start_batch=step,
        )
        loader = training_loader(
            dataset, sampler, num_workers=config.train.num_workers, pin_memory=ranks.device.type == "cuda"
        )
        pairs = DistributedDataParallel(_Pairs(model)) if ranks.world_size > 1 else _Pairs(model)
        total = config.optimizer.num_train_steps
        logger.info(
            "%d examples, %.1f M parameters, %d device(s) of type %s, steps %d to %d",
            len(dataset),
            sum(p.numel() for p in model.parameters()) / 1e6,
            ranks.world_size,
            ranks.device.type,
            step,
            total,
        )
        shown = Metrics if ranks.is_first else NoMetrics
        stopped = False
        with (
            StopRequest() as stop,
            shown(files.out, first_step=step, total_steps=total, batch_size=config.train.batch_size) as metrics,
        ):
            batches = iter(loader) if step < total else iter(())
            while step < total and not stopped:
                values = train_step(pairs, model, optimizer, next(batches), step, config, ranks)
                step += 1
                metrics.advance()
                stopped = ranks.any(stop.name is not None)
                last = stopped or step == total
                if last or step % config.train.log_every == 0:
                    metrics.log(step, mean_over_ranks(values, ranks))
                if last or step % config.train.checkpoint_every == 0:
                    if ranks.is_first:
                        save_checkpoint(files.out, step, model, optimizer, keep=config.train.keep_checkpoints)
                    ranks.barrier()
        if stopped:
            logger.warning("stopped by %s after step %d; --resume %s goes on", stop.name, step, files.out)
    return list_checkpoints(files.out)[-1].path


def train_step(
    pairs: Callable[[PretrainBatch], PretrainPairs],
    model: MerlotReserve,
    optimizer: torch.optim.Optimizer,
    batch: PretrainBatch,
    step: int,
    config: Config,
    ranks: Ranks,
) -> dict[str, torch.Tensor]:
    """One step of one rank; returns its losses, still on the device."""
    settings = config.optimizer
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * learning_rate_scale(
            step, num_warmup_steps=settings.num_warmup_steps, num_train_steps=settings.num_train_steps
        )
    batch = batch.to(ranks.device, non_blocking=True)
    with torch.autocast(ranks.device.type, torch.bfloat16, enabled=config.train.precision == "bfloat16"):
        predictions = pairs(batch)
    loss = pretrain_loss(predictions, model.contrastive_scales, batch.targets.span_source, group=ranks.group)
    optimizer.zero_grad(set_to_none=True)
    loss.total.backward()
    optimizer.step()
    return loss.metrics()


def load_dataset(files: RunFiles, config: Config, ranks: Ranks) -> PretrainDataset:
    """Prepares the videos, on the first rank alone, and opens what came of them."""
    # First what a mistake can be found in at once: preparing the videos can take hours.
    tokenizer = Tokenizer.load(files.tokenizer)
    text = open_text_source(files.random_text, files.out) if files.random_text else None
    if ranks.is_first:
        with preparation_progress() as shown:
            prepare_and_record(
                files.videos,
                files.out,
                config.data,
                workers=config.train.prepare_workers,
                seed=config.train.seed,
                audio_track=config.train.audio_track,
                on_result=shown,
            )
    ranks.barrier()
    stores = recorded_stores(files.out)
    return PretrainDataset(
        stores, tokenizer, text or TranscriptTextSource(stores), config.data, config.model, seed=config.train.seed
    )


def make_optimizer(model: MerlotReserve, config: Config) -> BF16AdamW:
    """Pretraining's optimiser (SPEC 9)."""
    settings = config.optimizer
    return BF16AdamW(
        parameter_groups(model, settings.weight_decay_rate),
        settings.learning_rate,
        betas=(settings.beta_1, settings.beta_2),
        eps=settings.eps,
        weight_decay=settings.weight_decay_rate,
        moments="bfloat16" if settings.use_bfloat16_adam else "float32",
        bias_correction=settings.do_bias_correction,
    )


def restore(run: Path, model: MerlotReserve, optimizer: BF16AdamW) -> int:
    """Loads the run's last checkpoint, if any, into model and optimiser; returns the steps done.

    Raises ValueError where it is damaged or of other settings.
    """
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        return 0
    saved = MerlotReserve.from_pretrained(checkpoints[-1].path)
    wanted = asdict(model.config)
    changed = [
        f"{name} {value}, not {wanted[name]}" for name, value in asdict(saved.config).items() if value != wanted[name]
    ]
    if changed:
        raise ValueError(f"{checkpoints[-1].path} is of a model with {'; '.join(changed)}")
    model.load_state_dict(saved.state_dict())
    load_trainer_state(checkpoints[-1], optimizer)
    return checkpoints[-1].step


def mean_over_ranks(values: dict[str, torch.Tensor], ranks: Ranks) -> dict[str, float]:
    """The ranks' mean of each scalar, as numbers."""
    mean = ranks.mean(torch.stack([value.float() for value in values.values()]))
    return dict(zip(values, mean.tolist(), strict=True))


def _per_device(batch_size: int, world_size: int) -> int:
    if batch_size % world_size:
        raise ValueError(f"train.batch_size must be a multiple of the {world_size} devices; got {batch_size}")
    return batch_size // world_size
