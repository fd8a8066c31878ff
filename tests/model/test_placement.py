"""Models whose layers others have replaced: such layers may have no `weight`, and do more than multiply by it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from reserve.model.encoders import AudioEncoder, ClsTransformer, SpanEncoder, VisionEncoder
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.placement import is_plain_linear, module_device, module_dtype
from reserve.model.transformer import Attention, AttentionPool, Layer, Mlp, Norm, Transformer
from reserve.tasks.pretrain.batch import PretrainBatch
from reserve.tasks.pretrain.task import Pretrain
from tests.helpers.tiny_steps import TINY_RUN, tiny_batch

TASK = Pretrain(data=TINY_RUN.data, model=TINY_RUN.model)


class Adapted(nn.Module):
    """A frozen linear layer with a trained update of rank 2."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.frozen = layer.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, layer.in_features) / 10)
        self.up = nn.Parameter(torch.randn(layer.out_features, 2) / 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.frozen(x) + x @ self.down.to(x.dtype).T @ self.up.to(x.dtype).T

    def merged(self) -> torch.Tensor:
        return self.frozen.weight + self.up @ self.down


class Stored(nn.Module):
    """A linear layer whose weights are stored as bytes."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        largest = layer.weight.detach().abs().amax(1, keepdim=True)
        self.register_buffer("stored", (layer.weight.detach() / largest * 127).round().to(torch.int8))
        self.register_buffer("steps", largest / 127)
        self.added = None if layer.bias is None else layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, (self.stored * self.steps).to(x.dtype), self.added)


def replace_linears(model: nn.Module, by: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    """Replaces every linear layer, in place."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, by(child))
    return model


@pytest.fixture
def model() -> MerlotReserve:
    torch.manual_seed(0)
    return MerlotReserve(TINY_RUN.model)


@pytest.fixture(scope="module")
def batch() -> PretrainBatch:
    return tiny_batch()


def embeddings(model: MerlotReserve) -> Iterator[torch.Tensor]:
    """What the three zero-shot calls return."""
    generator = torch.Generator().manual_seed(0)
    config = model.config
    images = torch.randint(0, 256, (2, 2, *config.image_size, 3), generator=generator, dtype=torch.uint8)
    clips = torch.randn(2, 6, config.audio_seq_length, 65, generator=generator)
    tokens = torch.randint(4, config.vocab_size, (2, 9), generator=generator)
    yield model.embed_video(images, clips, tokens, torch.arange(9).expand(2, 9) % 6)
    yield model.embed_audio(clips)
    yield model.embed_text_spans(tokens)


def test_adapters_train_and_compute_what_merged_weights_compute(model: MerlotReserve, batch: PretrainBatch) -> None:
    replace_linears(model, Adapted)
    merged = copy.deepcopy(model)
    for module in list(merged.modules()):
        for name, child in module.named_children():
            if isinstance(child, Adapted):
                child.frozen.weight.data = child.merged()
                setattr(module, name, child.frozen)
    loss = TASK.loss(model, batch, None).total
    torch.testing.assert_close(loss, TASK.loss(merged, batch, None).total)
    loss.backward()
    adapters = [module for module in model.modules() if isinstance(module, Adapted)]
    assert all(adapter.up.grad is not None and adapter.down.grad is not None for adapter in adapters)
    for ours, expected in zip(embeddings(model), embeddings(merged), strict=True):
        torch.testing.assert_close(ours, expected)


class Wrapped(nn.Module):
    """Calls a module, and passes on none of its attributes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Any) -> Any:
        return self.module(*arguments)


KINDS = [VisionEncoder, AudioEncoder, SpanEncoder, ClsTransformer, Transformer, Layer, Attention, Mlp, Norm]
KINDS += [AttentionPool, nn.Linear, nn.Embedding]


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_is_used_by_calling_it(kind: type[nn.Module], model: MerlotReserve, batch: PretrainBatch) -> None:
    """A wrapper, such as one that shards, gathers parameters in its call and nowhere else."""
    expected = TASK.loss(model, batch, None).total, *embeddings(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, kind):
                setattr(module, name, Wrapped(child))
    for ours, before in zip((TASK.loss(model, batch, None).total, *embeddings(model)), expected, strict=True):
        torch.testing.assert_close(ours, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_quantised_weights_run_in_the_dtype_of_the_rest(dtype: torch.dtype, model: MerlotReserve) -> None:
    replace_linears(model.to(dtype), Stored)
    assert module_dtype(model.vision_encoder) == module_dtype(model.audio_encoder) == dtype
    for embedding in embeddings(model):
        assert embedding.dtype == dtype
        assert embedding.isfinite().all()


@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning", "ignore:torch.quantize_per")
def test_dynamic_quantisation_of_pytorch(model: MerlotReserve, batch: PretrainBatch) -> None:
    expected = list(embeddings(model))
    if "x86" not in torch.backends.quantized.supported_engines:
        pytest.skip("this PyTorch has no quantised linear layers")
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert TASK.loss(quantised, batch, None).total.isfinite()
    for ours, embedding in zip(embeddings(quantised), expected, strict=True):
        assert torch.cosine_similarity(ours, embedding, dim=-1).min() > 0.9


def _hook(layer: nn.Linear) -> None:
    layer.register_forward_hook(lambda module, inputs, output: output * 2)


def _pre_hook(layer: nn.Linear) -> None:
    layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))


def _own_forward(layer: nn.Linear) -> None:
    original = layer.forward
    layer.forward = lambda x: original(x) * 2


def _parametrised(layer: nn.Linear) -> None:
    parametrize.register_parametrization(layer, "weight", nn.Softplus())


def _pruned(layer: nn.Linear) -> None:
    prune.l1_unstructured(layer, "weight", 0.5)


EXTENSIONS = [_hook, _pre_hook, _own_forward, _parametrised, _pruned]


@pytest.mark.parametrize("extend", EXTENSIONS)
def test_what_is_hooked_into_a_layer_runs(extend: Callable[[nn.Linear], None], model: MerlotReserve) -> None:
    """The layer whose bias the activation adds is called like any other once it is more than its weight and bias."""
    mlp = model.joint_transformer.layers[0].mlp
    x = torch.randn(5, model.config.hidden_size)
    assert is_plain_linear(mlp.intermediate)
    extend(mlp.intermediate)
    assert not is_plain_linear(mlp.intermediate)
    z = mlp.intermediate(x)
    torch.testing.assert_close(mlp(x), mlp.out(z * torch.sigmoid(1.702 * z)))


def test_a_backward_hook_runs(model: MerlotReserve) -> None:
    mlp, seen = model.joint_transformer.layers[0].mlp, []
    mlp.intermediate.register_full_backward_hook(lambda module, inputs, outputs: seen.append(outputs[0].shape))
    mlp(torch.randn(5, model.config.hidden_size, requires_grad=True)).sum().backward()
    assert seen == [(5, 4 * model.config.hidden_size)]


def test_a_module_without_parameters_is_float32_on_the_cpu() -> None:
    assert module_dtype(nn.ReLU()) == torch.float32
    assert module_device(nn.ReLU()) == torch.device("cpu")


def test_buffers_count_where_there_is_no_parameter() -> None:
    module = nn.Module()
    module.register_buffer("table", torch.zeros(2, dtype=torch.int8, device="meta"))
    module.register_buffer("steps", torch.zeros(2, dtype=torch.float16, device="meta"))
    assert module_dtype(module) == torch.float16
    assert module_device(module) == torch.device("meta")
