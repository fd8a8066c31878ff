"""The step of BF16AdamW by the native library: one pass over memory, one call for all tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from reserve_kernels import native
from reserve_kernels.adamw.reference import Settings
from reserve_kernels.adamw.stochastic import DOUBLE_WORD
from reserve_kernels.native import AdamwRandom, AdamwRandoms, AdamwSettings, AdamwTensor, AdamwTensors

MOMENTS = {torch.float32: native.FLOAT32, torch.bfloat16: native.BFLOAT16}


def adamw_native_(
    weights: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    m: Sequence[torch.Tensor],
    v: Sequence[torch.Tensor],
    starts: Sequence[torch.Tensor],
    settings: Settings,
    keys: Sequence[int] = (),
    firsts: Sequence[int] = (),
    run: Callable[[AdamwSettings, AdamwTensors, AdamwRandoms], None] | None = None,
) -> None:
    """`adamw_reference_` of contiguous tensors of one device; weights and gradients are float32.

    `run` executes the updates instead of the kernel for the device of the weights; tests pass it.
    """
    # Keeps the memory of the pointers below alive until the call returns.
    gradients = [gradient.contiguous() for gradient in gradients]
    of_starts = [start.data_ptr() for start in starts] if starts else [None] * len(weights)
    tensors = (AdamwTensor * len(weights))(
        *(
            AdamwTensor(w.data_ptr(), g.data_ptr(), m_.data_ptr(), v_.data_ptr(), start, w.numel())
            for w, g, m_, v_, start in zip(weights, gradients, m, v, of_starts, strict=True)
        )
    )
    s = settings
    numbers = AdamwSettings(
        learning_rate=s.learning_rate,
        beta1=s.beta1,
        rest1=1 - s.beta1,
        beta2=s.beta2,
        rest2=1 - s.beta2,
        eps=s.eps,
        weight_decay=s.weight_decay,
        m_scale=s.m_scale,
        v_scale=s.v_scale,
        moments_dtype=MOMENTS[m[0].dtype],
    )
    random = None
    if keys:
        both = zip(keys, firsts, strict=True)
        random = (AdamwRandom * len(weights))(*(AdamwRandom(key & DOUBLE_WORD, first) for key, first in both))
    device = weights[0].device
    if run is not None:
        run(numbers, tensors, random)
    elif device.type == "cuda":
        with torch.cuda.device(device):
            native.library().adamw_cuda(numbers, tensors, random, torch.cuda.current_stream().cuda_stream)
    else:
        native.library().adamw_cpu(numbers, tensors, random, torch.get_num_threads())
