"""Typed configuration. Field names of the data, model and optimizer sections are those of the official YAML."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from reserve.config.step_window import step_window

NUM_MELS = 64
"""Mel bands the model takes (SPEC 1)."""
MEL_CHANNELS = NUM_MELS + 1
"""The mel bands and the playback speed."""
SEGMENT_SECONDS = 5
"""Length of a segment at playback speed 1."""
MAX_PLAYBACK_SPEED = 3
MAX_SEED = 2**63 - 1
"""What torch's generators take."""


def check_range(section: Any, prefix: str, low: float, high: float, *names: str) -> None:
    """Raises ValueError naming the first of the fields `names` that is not in [low, high]."""
    for name in names:
        if not low <= getattr(section, name) <= high:
            allowed = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
            raise ValueError(f"{prefix}.{name} must be {allowed}; got {getattr(section, name)}")


@dataclass(frozen=True)
class DataConfig:
    """Shapes and rates of the data (SPEC 1, 2, 7)."""

    sample_rate: int = 22050
    """Audio samples per second."""
    fft_window_size: int = 1536
    """Samples of the mel frontend's window at playback speed 1."""
    fft_hop_length: int = 588
    """Samples between mel frames at playback speed 1."""
    num_mels: int = 64
    """Mel bands."""
    spec_size: int = 188
    """Mel frames in a segment of 5 s."""
    num_segments: int = 16
    """Segments in an example."""
    num_segment_groups: int = 2
    """Groups the segments are divided into; each has its own joint sequence."""
    num_audio_subsegments: int = 3
    """Audio subsegments in a segment."""
    lang_seq_len: int = 160
    """Language tokens of a joint sequence with images."""
    seq_len: int = 640
    """Length of a joint sequence."""
    mask_rate: float = 0.25
    """Fraction of an example's subsegments that are targets, in each direction."""
    text_span_budget: int = 38
    """Masked spans of the random text."""
    num_text_spans_to_include: int = 48
    """Text spans kept per example, chosen over the whole device batch."""
    use_audio_token_prob: float = 0.5
    """Probability that audio_text_matching shows an example's audio rather than its words."""
    random_scale_min: float = 1.05
    """Smallest factor on the size that a training image is resized to, before it is cropped at random."""
    random_scale_max: float = 1.1
    """Largest such factor."""
    languages: tuple[str, ...] = ("en",)
    """Languages of the transcripts and text tracks to prefer, in order: codes or names such as en, pt-BR, deu, German.
    Those in other languages are used only where there is none in these."""

    def __post_init__(self) -> None:
        whole = [name for name, value in vars(self).items() if type(value) is int and name != "text_span_budget"]
        check_range(self, "data", 1, math.inf, *whole)
        check_range(self, "data", 0, math.inf, "text_span_budget")
        check_range(self, "data", 0, 1, "use_audio_token_prob")
        if not 0 < self.random_scale_min <= self.random_scale_max:
            raise ValueError(
                "data.random_scale_min must be above 0 and at most data.random_scale_max; got "
                f"{self.random_scale_min} and {self.random_scale_max}"
            )
        if not all(language.strip() for language in self.languages):
            raise ValueError(f"data.languages must hold codes or names of languages; got {list(self.languages)}")
        if self.num_segments % self.num_segment_groups:
            raise ValueError(
                f"data.num_segments must be a multiple of data.num_segment_groups; got {self.num_segments} and "
                f"{self.num_segment_groups}"
            )
        if not 0 < self.mask_rate <= 0.5:
            raise ValueError(
                f"data.mask_rate must be in (0, 0.5], since the targets of the two directions are disjoint; "
                f"got {self.mask_rate}"
            )
        if not self.num_masked_subsegments:
            raise ValueError(
                f"data.mask_rate must mask one at least of the {self.num_subsegments} subsegments of an example; "
                f"got {self.mask_rate}"
            )
        if self.num_text_spans_to_include > self.num_text_spans:
            raise ValueError(
                f"data.num_text_spans_to_include must be at most the {self.num_text_spans} spans an example has; "
                f"got {self.num_text_spans_to_include}"
            )
        # Masking never drops a MASK or LTOVPOOL (SPEC 7), so the sequences must have room for them.
        masked = min(self.num_masked_subsegments, self.segments_per_group * self.num_audio_subsegments)
        if self.lang_seq_len < 2 * masked:
            raise ValueError(
                f"data.lang_seq_len must be at least {2 * masked}, a MASK and a MASKAUDIO for each of the {masked} "
                f"targets that a group can have; got {self.lang_seq_len}"
            )
        shortest = max(self.num_segments, self.text_span_budget)
        if self.seq_len < shortest:
            raise ValueError(
                f"data.seq_len must be at least {shortest}, an LTOVPOOL for each of data.num_segments or a MASK for "
                f"each of data.text_span_budget; got {self.seq_len}"
            )

    @property
    def segments_per_group(self) -> int:
        """Segments in each group."""
        return self.num_segments // self.num_segment_groups

    @property
    def num_subsegments(self) -> int:
        """Audio subsegments in an example."""
        return self.num_segments * self.num_audio_subsegments

    @property
    def num_masked_subsegments(self) -> int:
        """Target subsegments of an example in each direction."""
        return int(self.num_subsegments * self.mask_rate)

    @property
    def num_text_spans(self) -> int:
        """Text spans of an example: text2audio, audio2text, then random_text."""
        return 2 * self.num_masked_subsegments + self.text_span_budget


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the model (SPEC 4, 6)."""

    hidden_size: int = 768
    """Width of all encoders; heads have 64 dimensions each."""
    vocab_size: int = 32768
    """Rows of the token embedding."""
    vit_num_layers: int = 12
    """Layers of the vision encoder."""
    vit_patch_size: int = 16
    """Side of a patch, pixels."""
    vit_pooling_ratio: int = 2
    """Side of the squares of patches that are pooled into one joint token."""
    output_grid: tuple[int, int] = (12, 20)
    """Patches high and wide."""
    audio_num_layers: int = 12
    """Layers of the audio encoder."""
    audio_patch_size: int = 2
    """Mel frames in a patch of the audio encoder."""
    audio_seq_length: int = 60
    """Mel frames in a subsegment."""
    audio_token_length: int = 6
    """Joint tokens a subsegment gives."""
    span_num_layers: int = 4
    """Layers of the text span encoder."""
    text_span_length: int = 15
    """Most tokens of a text span; longer ones are cut."""
    joint_num_layers: int = 12
    """Layers of the joint encoder."""
    rotary: Literal["reserve", "standard"] = "reserve"
    """The released diagonal form or the textbook rotation (SPEC 5)."""
    init_scale: float = 1.0
    """Factor on the initial kernels; 1 is the reference's, made for hidden sizes of 768 and more."""
    init_log_scale: float = 1.0
    """What contrastive_scales, the logarithms of the inverse temperatures, start at."""

    def __post_init__(self) -> None:
        # Subclasses have settings of their own, which may be zero or no number.
        for name, value in ((own.name, getattr(self, own.name)) for own in fields(ModelConfig)):
            sizes = value if isinstance(value, tuple) else (value,)
            if not isinstance(value, str) and min(sizes) <= 0 and not name.startswith("init_"):
                raise ValueError(f"model.{name} must be positive; got {value}")
        if not self.init_scale > 0:
            raise ValueError(f"model.init_scale must be above 0; got {self.init_scale}")
        if self.hidden_size % 64:
            raise ValueError(f"model.hidden_size must be a multiple of 64 (the head size); got {self.hidden_size}")
        if any(side % self.vit_pooling_ratio for side in self.output_grid):
            raise ValueError(
                f"model.output_grid must be divisible by model.vit_pooling_ratio {self.vit_pooling_ratio}; "
                f"got {tuple(self.output_grid)}"
            )
        patches, rest = divmod(self.audio_seq_length, self.audio_patch_size)
        if rest or patches % self.audio_token_length:
            raise ValueError(
                "model.audio_seq_length must be a multiple of audio_patch_size * audio_token_length; got "
                f"{self.audio_seq_length}, {self.audio_patch_size}, {self.audio_token_length}"
            )

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an input image, pixels."""
        return self.output_grid[0] * self.vit_patch_size, self.output_grid[1] * self.vit_patch_size

    @property
    def pooled_grid(self) -> tuple[int, int]:
        """Joint tokens an image gives, high and wide."""
        return self.output_grid[0] // self.vit_pooling_ratio, self.output_grid[1] // self.vit_pooling_ratio


@dataclass(frozen=True)
class FinetunedConfig(ModelConfig):
    """Sizes of a finetuned model: the encoders that its task needs, and a head of its own (SPEC 10.2)."""

    outputs: int = 1
    """Numbers the head gives at a MASK: 1 to score an answer, or as many as there are classes."""
    with_audio: bool = True
    """Keep the audio encoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outputs < 1:
            raise ValueError(f"model.outputs must be at least 1; got {self.outputs}")


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


@dataclass(frozen=True, kw_only=True)
class Config(FitConfig):
    """Everything that decides a pretraining run but its files."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        check_data_fits_model(self.data, self.model)


def check_data_fits_model(data: DataConfig, model: ModelConfig) -> None:
    """Raises ValueError naming the setting by which the data's shapes are not those the model takes."""
    if data.num_mels != NUM_MELS:
        raise ValueError(f"data.num_mels must be {NUM_MELS}, what the model takes; got {data.num_mels}")
    frames = 1 + SEGMENT_SECONDS * data.sample_rate // data.fft_hop_length
    if data.spec_size != frames:
        raise ValueError(
            f"data.spec_size must be {frames}, the mel frames of a segment at data.sample_rate and "
            f"data.fft_hop_length; got {data.spec_size}"
        )
    if data.num_audio_subsegments * model.audio_seq_length > data.spec_size:
        raise ValueError(
            f"data.num_audio_subsegments times model.audio_seq_length must be at most data.spec_size "
            f"{data.spec_size}; got {data.num_audio_subsegments} and {model.audio_seq_length}"
        )


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
}
"""The sections of a configuration file."""
