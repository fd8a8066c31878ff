"""Name, shape and axis order of every parameter in the official layout (SPEC 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Size, Tensor, from_numpy

from reserve.config import MEL_CHANNELS, FinetunedConfig, ModelConfig

PROJ = "proj/kernel"
"""The head of a finetuned checkpoint."""


@dataclass(frozen=True)
class Entry:
    """One parameter: its `flax` path and `shape`, its `torch` name, and whether it is a linear `kernel`."""

    flax: str
    torch: str
    shape: tuple[int, ...]
    kernel: bool = False

    def to_torch(self, array: np.ndarray, size: Size) -> Tensor:
        """A flax array as the torch parameter of shape `size`: kernels are [in, out] in flax and [out, in] in torch."""
        with np.errstate(over="ignore"):  # overflow gives infinity, which the caller rejects
            flat = from_numpy(array.astype(np.float32, order="C"))
        return flat.reshape(size[1], size[0]).T.contiguous() if self.kernel else flat.reshape(size)

    def to_flax(self, value: Tensor) -> np.ndarray:
        """A torch parameter as the flax array."""
        value = value.detach().float().cpu()
        return (value.T if self.kernel else value).contiguous().numpy().reshape(self.shape)


def _transformer(flax: str, name: str, hidden: int, layers: int) -> Iterator[Entry]:
    heads = hidden // 64

    def norm(flax_norm: str, torch_norm: str) -> Iterator[Entry]:
        yield Entry(f"{flax}/{flax_norm}/scale", f"{name}.{torch_norm}.weight", (hidden,))
        yield Entry(f"{flax}/{flax_norm}/bias", f"{name}.{torch_norm}.bias", (hidden,))

    yield from norm("pre_ln", "pre_norm")
    for i in range(layers):
        flax_layer, torch_layer = f"{flax}/layer_{i:02d}", f"{name}.layers.{i}"
        yield from norm(f"layer_{i:02d}/pre_attn_ln", f"layers.{i}.attention_norm")
        attention = f"{flax_layer}/attention_layer"
        yield Entry(f"{attention}/qkv/kernel", f"{torch_layer}.attention.qkv.weight", (hidden, 3 * heads, 64), True)
        yield Entry(f"{attention}/qkv/bias", f"{torch_layer}.attention.qkv.bias", (3 * heads, 64))
        yield Entry(
            f"{attention}/attn_proj/kernel", f"{torch_layer}.attention.projection.weight", (heads, 64, hidden), True
        )
        yield from norm(f"layer_{i:02d}/pre_mlp_ln", f"layers.{i}.mlp_norm")
        mlp = f"{flax_layer}/mlp_layer"
        yield Entry(f"{mlp}/intermediate/kernel", f"{torch_layer}.mlp.intermediate.weight", (hidden, 4 * hidden), True)
        yield Entry(f"{mlp}/intermediate/bias", f"{torch_layer}.mlp.intermediate.bias", (4 * hidden,))
        yield Entry(f"{mlp}/out/kernel", f"{torch_layer}.mlp.out.weight", (4 * hidden, hidden), True)
    yield from norm("final_ln", "final_norm")


def _cls_transformer(flax: str, name: str, hidden: int, layers: int) -> Iterator[Entry]:
    yield Entry(f"{flax}/transformer/cls", f"{name}.encoder.cls", (hidden,))
    yield from _transformer(f"{flax}/transformer", f"{name}.encoder.transformer", hidden, layers)
    yield Entry(f"{flax}/transformer/cls_proj/kernel", f"{name}.encoder.cls_projection.weight", (hidden, hidden), True)
    yield Entry(f"{flax}/transformer/cls_proj/bias", f"{name}.encoder.cls_projection.bias", (hidden,))


def _pool(encoder: str, hidden: int) -> Iterator[Entry]:
    heads = hidden // 64
    for part in ("query", "key", "value"):
        flax_part, torch_part = f"{encoder}/seq_attnpool/{part}", f"{encoder}.pool.{part}"
        yield Entry(f"{flax_part}/kernel", f"{torch_part}.weight", (hidden, heads, 64), True)
        yield Entry(f"{flax_part}/bias", f"{torch_part}.bias", (heads, 64))
    yield Entry(f"{encoder}/seq_attnpool/out/kernel", f"{encoder}.pool.out.weight", (heads, 64, hidden), True)
    yield Entry(f"{encoder}/seq_attnpool/out/bias", f"{encoder}.pool.out.bias", (hidden,))


def parameter_entries(config: ModelConfig) -> list[Entry]:
    """Every parameter of the model with its name and shape in the official layout (SPEC 4).

    Of a FinetunedConfig, those of a finetuned model: without the parts that finetuning drops, with `proj` (SPEC 10.2).
    """
    if not isinstance(config, FinetunedConfig):
        return _all_entries(config)
    dropped = ("span_encoder.", "head.") if config.with_audio else ("span_encoder.", "head.", "audio_encoder.")
    kept = [entry for entry in _all_entries(config) if not entry.torch.startswith(dropped)]
    return [*kept, Entry(PROJ, "proj.weight", (config.hidden_size, config.outputs), True)]


def _all_entries(config: ModelConfig) -> list[Entry]:
    """The parameters of a pretrained model."""
    hidden, patch = config.hidden_size, 3 * config.vit_patch_size**2
    audio = (config.audio_patch_size, MEL_CHANNELS, hidden)
    return [
        Entry("vision_encoder/embedding/kernel", "vision_encoder.embedding.weight", (patch, hidden), True),
        Entry("vision_encoder/embedding/bias", "vision_encoder.embedding.bias", (hidden,)),
        *_cls_transformer("vision_encoder", "vision_encoder", hidden, config.vit_num_layers),
        *_pool("vision_encoder", hidden),
        Entry("audio_encoder/embedding/kernel", "audio_encoder.embedding.weight", audio, True),
        Entry("audio_encoder/embedding/bias", "audio_encoder.embedding.bias", (hidden,)),
        *_cls_transformer("audio_encoder", "audio_encoder", hidden, config.audio_num_layers),
        *_pool("audio_encoder", hidden),
        Entry("token_encoder/Embed_0/embedding", "token_embedding.weight", (config.vocab_size, hidden)),
        *_cls_transformer("span_encoder", "span_encoder", hidden, config.span_num_layers),
        *_transformer("joint_transformer", "joint_transformer", hidden, config.joint_num_layers),
        Entry("head/kernel", "head.weight", (hidden, hidden), True),
        Entry("head/bias", "head.bias", (hidden,)),
        Entry("contrastive_scales", "contrastive_scales", (3,)),
    ]
