"""The model without numbers: on the meta device and under FakeTensorMode, to plan memory and pipelines."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from reserve.batch.movable import Movable
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.task import Pretrain
from tests.helpers.tiny_steps import TINY_RUN, tiny_batch

TASK = Pretrain(data=TINY_RUN.data, model=TINY_RUN.model)


def faked(mode: FakeTensorMode, value: Any) -> Any:
    """A batch with fake tensors of the same shapes."""
    if isinstance(value, torch.Tensor):
        return mode.from_tensor(value)
    if isinstance(value, Movable):
        return type(value)(**{field.name: faked(mode, getattr(value, field.name)) for field in fields(value)})
    return value


def losses_and_gradients(model: MerlotReserve, batch: Any) -> list[tuple[tuple[int, ...], torch.dtype]]:
    loss = TASK.loss(model, batch, None)
    loss.total.backward()
    tensors = [loss.total, *loss.metrics.values(), *(p.grad for p in model.parameters())]
    return [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]


def test_a_pretraining_step_on_the_meta_device() -> None:
    expected = losses_and_gradients(TASK.build_model(), tiny_batch())
    with torch.device("meta"):
        model = TASK.build_model()
    with FlopCounterMode(display=False) as counter:
        assert losses_and_gradients(model, tiny_batch().to("meta")) == expected
    assert all(p.is_meta and p.grad.is_meta for p in model.parameters())
    # Attention counts an upper bound, since the lengths have no values.
    work = TASK.workload(tiny_batch()).flops
    assert work <= counter.get_total_flops() < 1.1 * work


def test_a_pretraining_step_under_fake_tensor_mode() -> None:
    expected = losses_and_gradients(TASK.build_model(), tiny_batch())
    real = tiny_batch()
    with FakeTensorMode() as mode:
        model = TASK.build_model()
        assert losses_and_gradients(model, faked(mode, real)) == expected
    assert all(isinstance(p, FakeTensor) for p in model.parameters())


@pytest.mark.parametrize("how", ["meta", "fake"])
def test_the_zero_shot_calls_have_their_shapes(how: str) -> None:
    config = TINY_RUN.model
    with FakeTensorMode() if how == "fake" else torch.device("meta"):
        model = MerlotReserve(config)
        images = torch.zeros(2, 3, *config.image_size, 3, dtype=torch.uint8)
        clips = torch.zeros(2, 9, config.audio_seq_length, 65)
        tokens = torch.zeros(2, 7, dtype=torch.int64)
        assert model.embed_video(images, clips, tokens, tokens).shape == (2, 7, config.hidden_size)
        assert model.embed_video(images, None, tokens, tokens).shape == (2, 7, config.hidden_size)
        assert model.embed_audio(clips).shape == (2, 9, config.hidden_size)
        assert model.embed_text_spans(tokens).shape == (2, config.hidden_size)


def test_ids_with_values_serve_a_model_without() -> None:
    with torch.device("meta"):
        model = MerlotReserve(TINY_RUN.model)
    assert model.embed_text_spans(torch.tensor([[10, 11, 0], [12, 0, 0]])).shape == (2, model.config.hidden_size)
    with pytest.raises(ValueError, match="spans must be token ids"):
        model.embed_text_spans(torch.tensor([[10**6]]))
