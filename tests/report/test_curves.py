"""Which curves the page has, and their chance levels."""

from __future__ import annotations

import pytest
import torch

from reserve.config import Config, TrainConfig
from reserve.report.curves import chance_losses, held_out_plots, machine_plots, training_plots
from reserve.tasks.pretrain.objective import ContrastPairs, PretrainPairs, pretrain_loss
from tests.helpers.small_stores import DATA, MODEL

CONFIG = Config(data=DATA, model=MODEL, train=TrainConfig(batch_size=4))


def titles(plots) -> list[str]:
    return [title for title, _ in plots]


def test_chance_is_the_loss_of_a_constant_model():
    same = torch.ones(1, 8)
    batch = CONFIG.train.batch_size
    masked, rest = DATA.num_masked_subsegments, DATA.num_subsegments - DATA.num_masked_subsegments
    spans = batch * DATA.num_text_spans_to_include
    pairs = PretrainPairs(
        ContrastPairs(*[same.expand(batch * DATA.num_segments, 8)] * 2),
        ContrastPairs(*[same.expand(batch * masked, 8)] * 2, same.expand(batch * rest, 8)),
        ContrastPairs(*[same.expand(spans, 8)] * 2),
    )
    loss = pretrain_loss(pairs, torch.ones(3), torch.arange(spans) % 3).metrics()
    losses = {name: float(value) for name, value in loss.items() if not name.startswith("scale_")}
    assert chance_losses(CONFIG) == pytest.approx(losses, abs=1e-4)


def test_plots_without_values_are_left_out():
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "share_waiting": 0.5}]
    assert titles(training_plots(lines, chance_losses(CONFIG), ())) == ["Total loss"]
    assert titles(training_plots(lines, {}, ("loss", "accuracy"))) == ["loss"]
    assert titles(machine_plots(lines)) == ["Share of the time spent waiting for data"]
    assert machine_plots([]) == []


def test_held_out_recall_has_its_chance():
    line = {"step": 1, "stuff_to_span_recall_at_1": 0.5, "stuff_to_span_chance_at_1": 0.1}
    ((title, picture),) = held_out_plots([line])
    assert title == "Recall@1 by problem"
    assert "chance" in picture
    assert "stuff_to_span" in picture
    assert "text_to_audio" not in picture


def test_another_tasks_figures_have_a_plot_each():
    assert titles(held_out_plots([{"step": 1, "a": 0.5, "b": 2.0, "seconds": 3.0}])) == ["a", "b"]
    assert held_out_plots([]) == []
