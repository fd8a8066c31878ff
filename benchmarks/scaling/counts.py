"""The two released sizes in numbers: what the model of scaling needs to know of a network and its examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reserve.config import Config

EXAMPLES = 16
"""Random examples that FLOPs and tokens are averaged over. Their words vary; frames and sounds do not."""


@dataclass(frozen=True)
class Sizes:
    """A network, and the mean of its examples' work.

    `layer_matrices` counts the elements of the matrices of all layers; `flops` are those of an example's forward and
    backward pass, contrastive logits not included (`reserve.model.flops`). `token_layers` are tokens times the layers
    that they pass, `widest_tokens` those of the encoder with most tokens. `image_bytes` and `sound_bytes` go from the
    host to the GPU.
    """

    name: str
    parameters: int
    layers: int
    layer_matrices: int
    hidden_size: int
    flops: int
    tokens: int
    token_layers: int
    widest_tokens: int
    image_bytes: int
    sound_bytes: int

    @property
    def other_parameters(self) -> int:
        """Embeddings, heads, biases and norms, which FSDP gathers in float32."""
        return self.parameters - self.layer_matrices


@dataclass(frozen=True)
class Problem:
    """A contrastive problem (SPEC 8.1), rows of an example: x with a pair, y with a pair, and y_extra."""

    name: str
    pairs: int
    extras: int = 0

    @property
    def own(self) -> int:
        """Logits among an example's own vectors: one product serves both directions, apart from the extras."""
        return self.pairs * (self.pairs + self.extras)

    @property
    def others(self) -> int:
        """Logits with another example's candidates: x with its y and y_extra, y with its x."""
        return self.pairs * (self.pairs + self.extras) + self.pairs**2

    @property
    def rows(self) -> int:
        """Vectors that are sent to other GPUs."""
        return 2 * self.pairs + self.extras


PROBLEMS = (Problem("imgs_to_audio", 16), Problem("text_to_audio", 12, 36), Problem("stuff_to_span", 48))
ROWS = sum(problem.rows for problem in PROBLEMS)

# Counted by `count`; tests/benchmarks/scaling/test_counts.py counts them again.
BASE = Sizes(
    name="base",
    parameters=316_412_163,
    layers=40,
    layer_matrices=283_115_520,
    hidden_size=768,
    flops=4_905_355_266_432,
    tokens=9_013,
    token_layers=105_623,
    widest_tokens=3_856,
    image_bytes=2_949_120,
    sound_bytes=748_800,
)
LARGE = Sizes(
    name="large",
    parameters=853_117_955,
    layers=64,
    layer_matrices=805_306_368,
    hidden_size=1024,
    flops=15_561_952_971_264,
    tokens=9_013,
    token_layers=192_127,
    widest_tokens=3_856,
    image_bytes=2_949_120,
    sound_bytes=748_800,
)


def count(name: str, config: Config, examples: int = EXAMPLES) -> Sizes:
    """Counts a configuration's sizes on random examples, without running the model."""
    import torch

    from benchmarks.step_cases import random_batch
    from reserve.model.flops import linear_flops
    from reserve.model.merlot_reserve import MerlotReserve
    from reserve.model.transformer import Layer
    from reserve.tasks.pretrain.objective import pretrain_workload

    batch, model = random_batch(config, examples), config.model
    with torch.device("meta"):
        network = MerlotReserve(model)
    layers = [module for module in network.modules() if isinstance(module, Layer)]
    assert batch.audio_clips is not None
    assert batch.spans is not None
    patches = model.output_grid[0] * model.output_grid[1]
    lengths = {
        "vision": (config.data.num_segments * (patches + 1), model.vit_num_layers),
        "audio": (
            config.data.num_subsegments * (model.audio_seq_length // model.audio_patch_size + 1),
            model.audio_num_layers,
        ),
        "span": (int(batch.spans.cu_seqlens[-1]) / examples, model.span_num_layers),
        "joint": (int(batch.joint.cu_seqlens[-1]) / examples, model.joint_num_layers),
    }
    targets, hidden = batch.targets, model.hidden_size
    candidates = (len(targets.pool_rows), len(targets.audio_index) + len(targets.audio_extra), len(targets.span_index))
    pairs = (len(targets.pool_rows), len(targets.audio_rows), len(targets.span_rows))
    logits = sum(linear_flops(n, hidden, m) for n, m in zip(pairs, candidates, strict=True))
    return Sizes(
        name=name,
        parameters=sum(p.numel() for p in network.parameters()),
        layers=len(layers),
        layer_matrices=sum(p.numel() for layer in layers for p in layer.parameters() if p.dim() >= 2),
        hidden_size=hidden,
        flops=round((pretrain_workload(model, batch).flops - logits) / examples),
        tokens=round(sum(tokens for tokens, _ in lengths.values())),
        token_layers=round(sum(tokens * depth for tokens, depth in lengths.values())),
        widest_tokens=round(max(tokens for tokens, _ in lengths.values())),
        image_bytes=batch.images.nbytes // examples,
        sound_bytes=batch.audio_clips.nbytes // examples,
    )
