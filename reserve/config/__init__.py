"""Configuration: typed sections, the files they come from, and the reference's files."""

from reserve.config.filters import FilterConfig
from reserve.config.schema import (
    MAX_PLAYBACK_SPEED,
    MEL_CHANNELS,
    NUM_MELS,
    SECTIONS,
    SEGMENT_SECONDS,
    Config,
    DataConfig,
    FinetunedConfig,
    ModelConfig,
)
from reserve.config.training import FitConfig, OptimizerConfig, TrainConfig

__all__ = [
    "MAX_PLAYBACK_SPEED",
    "MEL_CHANNELS",
    "NUM_MELS",
    "SECTIONS",
    "SEGMENT_SECONDS",
    "Config",
    "DataConfig",
    "FilterConfig",
    "FinetunedConfig",
    "FitConfig",
    "ModelConfig",
    "OptimizerConfig",
    "TrainConfig",
]
