"""Typed configuration. Field names of the data, model and optimizer sections are those of the official YAML."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from reserve.config.ranges import check_range
from reserve.config.training import FitConfig, OptimizerConfig, TrainConfig

NUM_MELS = 64
"""Mel bands the model takes (SPEC 1)."""
MEL_CHANNELS = NUM_MELS + 1
"""The mel bands and the playback speed."""
SEGMENT_SECONDS = 5
"""Length of a segment at playback speed 1."""
MAX_PLAYBACK_SPEED = 3


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
