"""Fused ops for MERLOT Reserve, usable on their own.

    from reserve_kernels import BF16AdamW, contrastive_loss, log_mel_spectrogram, rotary_attention

`backends()` lists which implementations can run on this machine, and why the others cannot.
"""

from reserve_kernels.adamw import BF16AdamW
from reserve_kernels.attention import rotary_attention
from reserve_kernels.backends import backends
from reserve_kernels.contrastive import ContrastiveLoss, contrastive_loss
from reserve_kernels.log_mel import log_mel_spectrogram

__all__ = [
    "BF16AdamW",
    "ContrastiveLoss",
    "backends",
    "contrastive_loss",
    "log_mel_spectrogram",
    "rotary_attention",
]
