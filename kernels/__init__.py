"""Fused ops for MERLOT Reserve, usable on their own.

    >>> import torch
    >>> from reserve_kernels import log_mel_spectrogram
    >>> log_mel_spectrogram(torch.zeros(2, 110250)).shape  # two clips of 5 s at 22050 Hz
    torch.Size([2, 188, 64])

`backends()` lists which implementations can run on this machine, and why the others cannot.
"""

from reserve_kernels.adamw import BF16AdamW
from reserve_kernels.attention import rotary_attention
from reserve_kernels.contrastive import ContrastiveLoss, Targets, contrastive_loss
from reserve_kernels.flops import register_when_counting
from reserve_kernels.log_mel import LogMelStream, log_mel_spectrogram
from reserve_kernels.quick_gelu import bias_quick_gelu
from reserve_kernels.status import backends

__all__ = [
    "BF16AdamW",
    "ContrastiveLoss",
    "LogMelStream",
    "Targets",
    "backends",
    "bias_quick_gelu",
    "contrastive_loss",
    "log_mel_spectrogram",
    "rotary_attention",
]

register_when_counting()


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("merlot-reserve")
        except PackageNotFoundError:
            return "unknown"  # a source tree that was never installed
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
