"""Fused ops for MERLOT Reserve, usable on their own.

    from reserve_kernels import rotary_attention, contrastive_loss, log_mel_spectrogram

`backends()` tells which implementations can run on this machine, and why the others cannot.
"""

from reserve_kernels.attention import rotary_attention
from reserve_kernels.backends import backends
from reserve_kernels.contrastive import ContrastiveLoss, contrastive_loss
from reserve_kernels.log_mel import log_mel_spectrogram

__all__ = ["ContrastiveLoss", "backends", "contrastive_loss", "log_mel_spectrogram", "rotary_attention"]
