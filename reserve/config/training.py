"""Settings of the trainer, for any task: the optimiser, and how a run goes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reserve.config.ranges import check_range
from reserve.config.step_window import step_window

MAX_SEED = 2**63 - 1
"""What torch's generators take."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its schedule (SPEC 9)."""

    learning_rate: float = 4e-4
    """At the end of the warm-up."""
    num_train_steps: int = 750000
    """Length of the run and of the schedule, in steps."""
    num_warmup_steps: int = 3750
    """Steps over which the learning rate rises linearly from 0."""
    weight_decay_rate: float = 0.1
    """Decoupled weight decay of tensors with more than one axis (SPEC 9)."""
    beta_1: float = 0.9
    """Decay of the first moment."""
    beta_2: float = 0.98
    """Decay of the second moment."""
    eps: float = 1e-6
    """Added to the root of the second moment."""
    use_bfloat16_adam: bool = True
    """Keep the moments in bfloat16, as the reference does, rather than in float32. With betas other than the
    reference's they are rounded stochastically."""
    do_bias_correction: bool = False
    """Divide the moments by 1 - beta^step, as Adam does; the reference does not."""
    max_grad_norm: float = 0.0
    """Scale a step's gradients so that their joint norm is at most this; 0 leaves them as they are, as the reference
    does."""

    def __post_init__(self) -> None:
        check_range(self, "optimizer", 0, math.inf, "learning_rate", "weight_decay_rate", "max_grad_norm")
        for name in ("beta_1", "beta_2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name} must be in [0, 1); got {getattr(self, name)}")
        if not self.eps > 0:
            raise ValueError(f"optimizer.eps must be above 0; got {self.eps}")
        if self.num_train_steps < 1 or not 0 <= self.num_warmup_steps <= self.num_train_steps:
            raise ValueError(
                "optimizer.num_train_steps must be at least 1 and optimizer.num_warmup_steps between 0 and it; got "
                f"{self.num_train_steps} and {self.num_warmup_steps}"
            )


@dataclass(frozen=True)
class TrainConfig:
    """How a run goes."""

    batch_size: int = 1024
    """Examples of a step, over all devices."""
    accumulate: int = 1
    """Micro-batches that a device computes one after another in a step, to save memory. Candidates of the contrastive
    losses are those of one micro-batch, unless grad_cache is set."""
    grad_cache: bool = False
    """With accumulate: make everything in the batch a candidate, as if it were not split (GradCache, Gao et al. 2021).
    Each micro-batch is computed twice, first without gradients: a third more time."""
    seed: int = 0
    """Decides the weights, the order of the examples, the masking and the preparation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes CUDA where PyTorch sees a device."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several devices share the work. ddp: each has the whole model. fsdp: they share parameters, gradients and
    moments, and gather a layer when it runs (FSDP2). auto is ddp."""
    fsdp_ranks: int = 0
    """With fsdp: how many devices share one copy of the model; groups of so many hold copies of it. The devices of a
    node, for slow networks. 0 shares among all."""
    cpu_offload: bool = False
    """With fsdp on GPUs: keep parameters, gradients and moments in host memory and update them there."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations; parameters stay in float32. auto is bfloat16 on a GPU and on CPUs with instructions for it."""
    compile: Literal["auto", "layers", "none"] = "auto"
    """Compile each layer with torch.compile; auto does so on a GPU where there is a compiler."""
    recompute_layers: bool = False
    """Keep only the inputs of each layer and run it again in the backward pass: a third more time, a fraction of the
    memory."""
    num_workers: int = 4
    """Processes that load examples, a device; 0 loads in the trainer itself."""
    decode_on: Literal["loader", "device"] = "loader"
    """Where pretraining decodes pictures: in the processes that load examples, or with DALI on the training device,
    where FLAC sound becomes spectrograms too. device takes that work off these processes; pictures differ by what
    DALI's filters do otherwise."""
    prepare_workers: int = 4
    """Processes that prepare videos."""
    decoder: str = "auto"
    """What decodes the videos that are prepared: auto, which chooses by file and machine, or the name of a decoder."""
    shard_cache: Path | None = None
    """Folder where shards from URLs are cached; null is reserve/shards in the user's folder for caches. Runs can share
    it."""
    shard_cache_gb: float = 50.0
    """Most that the cached shards may take, in 10^9 bytes. The parts used longest ago are removed first."""
    audio_track: int | None = None
    """Which audio track of a video is heard, counted from 0; null chooses by data.languages and the tracks' labels."""
    log_every: int = 10
    """Steps between two lines of metrics."""
    profile_steps: str = ""
    """Steps to profile, FROM:TO: those between FROM and TO finished steps, at most 100. Each rank writes a trace and a
    table into the run's folder profile. Empty profiles none."""
    wandb_project: str = ""
    """Weights & Biases project that shows the run too; empty sends nothing. Entity, mode and key are W&B's environment
    variables. Needs the extra wandb."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints."""
    evaluate_every: int = 0
    """Steps between two evaluations on held-out data, each of a checkpoint that is saved for it if need be. The
    training waits meanwhile. 0 evaluates nothing."""
    keep_checkpoints: int = 3
    """Latest checkpoints that are kept."""
    keep_every: int = 0
    """Keep, besides, every checkpoint at a multiple of this many steps; 0 keeps none for that."""
    keep_best: int = 0
    """Keep, besides, this many checkpoints with the lowest mean training loss since the checkpoint before."""
    async_checkpoints: bool = True
    """Write checkpoints while the training goes on. It takes a copy of what a rank writes in host memory."""
    max_failed_saves: int = 3
    """Checkpoints in a row that may fail, as on a full disk, before the run stops."""
    max_not_finite: int = 10
    """Steps in a row that may have a loss or gradients that are not finite before the run stops; 0 never stops it. They
    are looked at every log_every steps."""
    stop_timeout: float = 120.0
    """Seconds from a signal to stop until the run ends, whether it is saved or not; 0 waits until it is. Less than what
    the job scheduler leaves between the two."""
    rank_timeout: float = 60.0
    """Seconds without a heartbeat of a rank until it counts as lost and all end: its process is stopped, or its host or
    the network is gone. A process that dies beside another rank of its machine is noticed within a second."""
    hang_timeout: float = 1800.0
    """Seconds without progress of any rank until the run counts as hanging and all end; 0 waits for ever. Preparation,
    set-up and evaluation may take longer."""

    def __post_init__(self) -> None:
        positive = ("batch_size", "accumulate", "log_every", "checkpoint_every", "keep_checkpoints", "prepare_workers")
        check_range(self, "train", 1, math.inf, *positive)
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"train.batch_size must be a multiple of train.accumulate {self.accumulate}; got {self.batch_size}"
            )
        check_range(self, "train", 0, math.inf, "num_workers", "seed", "fsdp_ranks", "keep_every", "keep_best")
        check_range(self, "train", 1, math.inf, "max_failed_saves")
        check_range(self, "train", 0, math.inf, "evaluate_every", "max_not_finite", "stop_timeout")
        for name in ("fsdp_ranks", "cpu_offload"):
            if getattr(self, name) and self.parallel != "fsdp":
                raise ValueError(
                    f"train.{name} needs train.parallel fsdp; got {getattr(self, name)} with train.parallel "
                    f"{self.parallel}"
                )
        step_window("train.profile_steps", self.profile_steps)
        if self.audio_track is not None:
            check_range(self, "train", 0, math.inf, "audio_track")
        if not 0 < self.shard_cache_gb < math.inf:
            raise ValueError(f"train.shard_cache_gb must be above 0 and finite; got {self.shard_cache_gb:g}")
        for name in ("rank_timeout", "hang_timeout"):
            seconds = getattr(self, name)
            if not 1 <= seconds < math.inf and not (name == "hang_timeout" and seconds == 0):
                zero = "0 or " if name == "hang_timeout" else ""
                raise ValueError(f"train.{name} must be {zero}at least 1 and finite; got {seconds:g}")
        if self.seed > MAX_SEED:
            raise ValueError(f"train.seed must be at most 2^63 - 1; got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Settings of the trainer, for any task."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
