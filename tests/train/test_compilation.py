"""Compiled layers: one graph for all sizes, the results of eager mode, and machines without a compiler."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.transformer import Layer
from reserve.tasks.pretrain.batch import PretrainBatch
from reserve.tasks.pretrain.task import Pretrain
from reserve.train import compilation
from reserve.train.compilation import compile_layers, compiler_fault
from tests.helpers.tiny_steps import TINY_RUN, tiny_batch

CPU, GPU = torch.device("cpu"), torch.device("cuda")
TASK = Pretrain.of(TINY_RUN)


@pytest.fixture(autouse=True)
def _new_compiler() -> Iterator[None]:
    """Forgets what was compiled, and whether a compiler was found."""
    torch._dynamo.reset()
    counters.clear()
    compiler_fault.cache_clear()
    yield
    torch._dynamo.reset()
    compiler_fault.cache_clear()


@pytest.fixture
def _without_code_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are traced and guarded, then run op by op, so that the machine needs no compiler."""
    whole = torch.compile
    monkeypatch.setattr(compilation.torch, "compile", lambda f, **options: whole(f, backend="aot_eager", **options))
    monkeypatch.setattr(compilation, "compiler_fault", lambda device_type: None)


def graphs() -> int:
    """The graphs compiled so far."""
    return counters["stats"]["unique_graphs"]


def gradients(model: MerlotReserve, batch: PretrainBatch) -> list[torch.Tensor]:
    """The loss and its gradients."""
    loss = TASK.loss(model, batch, None).total
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.usefixtures("_without_code_generation")
def test_one_graph_serves_all_encoders_and_all_numbers_of_tokens():
    model, eager = TASK.build_model(), TASK.build_model()
    eager.load_state_dict(model.state_dict())
    assert compile_layers(model, "layers", CPU)
    batches = [tiny_batch(examples, seed=seed) for seed, examples in enumerate((2, 3, 2, 1))]
    assert len({len(batch.joint.order) for batch in batches}) == 4
    for number, batch in enumerate(batches):
        for ours, expected in zip(gradients(model, batch), gradients(eager, batch), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
        assert graphs() == 1, f"compiled again for batch {number}"


@pytest.mark.usefixtures("_without_code_generation")
def test_under_autocast_too():
    model, eager = TASK.build_model(), TASK.build_model()
    eager.load_state_dict(model.state_dict())
    compile_layers(model, "layers", CPU)
    for seed in (0, 1):
        batch = tiny_batch(seed=seed)
        with torch.autocast("cpu", torch.bfloat16):
            ours, expected = gradients(model, batch), gradients(eager, batch)
        torch.testing.assert_close(ours[0], expected[0], rtol=1e-2, atol=0)
        assert graphs() == 1


@pytest.mark.usefixtures("_without_code_generation")
def test_names_of_weights_do_not_change():
    model = TASK.build_model()
    names = list(model.state_dict())
    compile_layers(model, "layers", CPU)
    assert list(model.state_dict()) == names


@pytest.mark.usefixtures("_without_code_generation")
def test_a_deep_copy_computes_with_its_own_weights():
    layer = Layer(64, "reserve")
    compile_layers(layer, "layers", CPU)
    copied = copy.deepcopy(layer)
    for parameter in copied.parameters():
        nn.init.zeros_(parameter)
    x, cu_seqlens = torch.randn(5, 64), torch.tensor([0, 5], dtype=torch.int32)
    inputs = x, cu_seqlens, 5, torch.rand(5, 16)
    assert not torch.allclose(layer(*inputs), x)
    assert torch.equal(copied(*inputs), x), "a layer whose matrices are zero adds nothing"


@pytest.mark.parametrize(("mode", "device"), [("none", GPU), ("auto", CPU)])
def test_it_does_not_look_for_a_compiler_where_none_is_wanted(mode, device, monkeypatch):
    monkeypatch.setattr(compilation, "compiler_fault", lambda device_type: pytest.fail("looked for a compiler"))
    model = TASK.build_model()
    assert not compile_layers(model, mode, device)
    assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.parametrize(("mode", "device"), [("auto", GPU), ("layers", CPU)])
def test_a_machine_without_a_compiler(mode, device, monkeypatch, caplog):
    def fail(*_, **__):
        raise RuntimeError("Failed to find C compiler\nand more")

    monkeypatch.setattr(compilation.torch, "compile", fail)
    model = TASK.build_model()
    # Devices are only named in this test: nothing is allocated on them.
    monkeypatch.setattr(compilation.torch, "ones", lambda *_, **__: None)
    if mode == "layers":
        with pytest.raises(
            RuntimeError, match=r"train.compile is layers, but .*RuntimeError: Failed to find C compiler$"
        ):
            compile_layers(model, mode, device)
    else:
        assert not compile_layers(model, mode, device)
        assert "layers are not compiled" in caplog.text
        assert "Failed to find C compiler" in caplog.text
    assert all("forward" not in vars(module) for module in model.modules())
