"""The work of a training step, counted from the model's sizes and those of a batch, without running anything.

FLOPs are those of matrix products, as PyTorch's FlopCounterMode counts them. A linear layer takes 2 · rows · in · out
forward and as many for each gradient. Attention takes two products forward and five backward, over pairs of tokens that
attend to each other. Norms, activations, the optimiser and recomputed layers (train.recompute_layers) do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reserve.batch.inputs import ModelInputs
from reserve.config import MEL_CHANNELS, ModelConfig

FORWARD_AND_BACKWARD = 3
"""Products of a linear layer in a training step: the output, and the gradients of its weights and its input."""
WITHOUT_INPUT_GRADIENT = 2


@dataclass(frozen=True)
class Workload:
    """What a device computes for a batch: tokens that pass an encoder, CLS included, and FLOPs of a training step."""

    tokens: int
    flops: int

    def __add__(self, other: Workload) -> Workload:
        return Workload(self.tokens + other.tokens, self.flops + other.flops)


def linear_flops(rows: int, inputs: int, outputs: int, products: int = FORWARD_AND_BACKWARD) -> int:
    """A linear layer on `rows` vectors, forward and backward."""
    return products * 2 * rows * inputs * outputs


def transformer_workload(hidden_size: int, num_layers: int, lengths: torch.Tensor) -> Workload:
    """A transformer on packed sequences; `lengths` [sequences] are whole numbers on the CPU."""
    lengths = lengths.long()
    tokens, pairs = int(lengths.sum()), int(lengths.square().sum())
    # qkv, projection, and the two layers of the MLP.
    weights = (3 + 1 + 4 + 4) * hidden_size
    layer = linear_flops(tokens, hidden_size, weights) + 14 * hidden_size * pairs
    return Workload(tokens, num_layers * layer)


def encoding_workload(config: ModelConfig, inputs: ModelInputs) -> Workload:
    """`MerlotReserve.forward` on `inputs` and its backward pass. Counted on the CPU, before the batch moves."""
    *_, height, width, _ = inputs.images.shape
    patch, hidden = config.vit_patch_size, config.hidden_size
    work = _with_cls_and_pool(
        config,
        layers=config.vit_num_layers,
        sequences=inputs.images[..., 0, 0, 0].numel(),
        length=height * width // patch**2,
        channels=3 * patch**2,
        window=config.vit_pooling_ratio**2,
    )
    if inputs.audio_clips is not None:
        length = config.audio_seq_length // config.audio_patch_size
        work += _with_cls_and_pool(
            config,
            layers=config.audio_num_layers,
            sequences=inputs.audio_clips[..., 0, 0].numel(),
            length=length,
            channels=config.audio_patch_size * MEL_CHANNELS,
            window=length // config.audio_token_length,
        )
    if inputs.spans is not None:
        lengths = inputs.spans.cu_seqlens.diff()
        work += transformer_workload(hidden, config.span_num_layers, lengths)
        work += Workload(0, linear_flops(len(lengths), hidden, hidden))
    return work + transformer_workload(hidden, config.joint_num_layers, inputs.joint.cu_seqlens.diff())


def _with_cls_and_pool(
    config: ModelConfig, *, layers: int, sequences: int, length: int, channels: int, window: int
) -> Workload:
    """An encoder of equal sequences: embedding, transformer, projection of the CLS, and pooling of windows."""
    hidden, tokens = config.hidden_size, sequences * length
    pooled = tokens // window
    embedding = linear_flops(tokens, channels, hidden, WITHOUT_INPUT_GRADIENT)
    projection = linear_flops(sequences, hidden, hidden)
    # Query and output of each window, key and value of each token; then scores and weighted sum over a window's tokens.
    pooling = linear_flops(2 * pooled + 2 * tokens, hidden, hidden) + 2 * linear_flops(tokens, hidden, 1)
    transformer = transformer_workload(hidden, layers, torch.full((sequences,), length + 1, device="cpu"))
    return transformer + Workload(0, embedding + projection + pooling)
