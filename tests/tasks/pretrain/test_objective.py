"""The metrics of the objective, and its work; tests/model/test_plain_model.py checks the values of the losses."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from reserve.tasks.pretrain.objective import ContrastPairs, PretrainPairs, pretrain_loss
from reserve.tasks.pretrain.task import Pretrain
from tests.helpers.tiny_steps import TINY_RUN, tiny_batch


def random_pairs(spans: int) -> PretrainPairs:
    def vectors(n: int) -> torch.Tensor:
        return torch.randn(n, 64, dtype=torch.float64, requires_grad=True)

    return PretrainPairs(
        imgs_to_audio=ContrastPairs(vectors(4), vectors(4)),
        text_to_audio=ContrastPairs(vectors(3), vectors(3), vectors(9)),
        stuff_to_span=ContrastPairs(vectors(spans), vectors(spans)),
    )


def test_metrics_name_everything_and_hold_no_graph() -> None:
    torch.manual_seed(0)
    loss = pretrain_loss(random_pairs(5), torch.ones(3, dtype=torch.float64), torch.tensor([0, 0, 1, 2, -1]))
    metrics = loss.metrics()
    assert set(metrics) == {
        *("loss", "imgs_to_audio", "text_to_audio", "stuff_to_span"),
        *("span_text2audio", "span_audio2text", "span_random_text"),
        *("scale_imgs_to_audio", "scale_text_to_audio", "scale_stuff_to_span"),
    }
    assert metrics["scale_text_to_audio"] == torch.ones((), dtype=torch.float64).exp()
    assert not any(value.requires_grad for value in metrics.values())
    assert loss.total.requires_grad
    torch.testing.assert_close(metrics["loss"], sum(loss.parts.values()).detach())


def test_source_without_spans_reports_zero() -> None:
    torch.manual_seed(0)
    loss = pretrain_loss(random_pairs(2), torch.ones(3, dtype=torch.float64), torch.tensor([0, 0]))
    assert loss.by_source["audio2text"] == 0
    assert loss.by_source["text2audio"] > 0


def test_a_step_counts_the_flops_that_pytorch_counts() -> None:
    torch.manual_seed(0)
    task = Pretrain.of(TINY_RUN)
    model, batch = task.build_model(), tiny_batch(3)
    with FlopCounterMode(display=False) as mode:
        task.loss(model, batch, None).total.backward()
    assert task.workload(batch).flops == mode.get_total_flops()
