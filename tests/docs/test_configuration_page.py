"""The page of all settings."""

from __future__ import annotations

from dataclasses import dataclass, fields

import configuration_page
import pytest
from configuration_page import allowed_values, attribute_docstrings

from reserve.cli.finetune import TASKS
from reserve.config import SECTIONS
from reserve.tasks import find_task


def test_every_setting_has_its_row():
    page, finetuning = configuration_page.page().split("## Finetuning")
    for text, kinds in ((page, SECTIONS.values()), (finetuning, finetuning_sections())):
        rows = text.splitlines()
        for kind in kinds:
            for field in fields(kind):
                wanted = sum(other.name == field.name for each in kinds for other in fields(each))
                assert sum(row.startswith(f"| `{field.name}` |") for row in rows) == wanted, field.name


def finetuning_sections():
    """What the finetuned tasks have beside the sections of every task."""
    return [kind for name in TASKS for section, kind in find_task(name).sections().items() if section != "model"]


WARMUP = "optimizer.num_train_steps must be at least 1 and optimizer.num_warmup_steps between 0 and it"


@pytest.mark.parametrize(
    ("section", "name", "rules"),
    [
        ("train", "batch_size", ["at least 1"]),
        ("train", "seed", ["at least 0", "at most 2^63 - 1"]),
        ("train", "device", []),
        ("optimizer", "eps", ["above 0"]),
        ("optimizer", "beta_1", ["in [0, 1)"]),
        (
            "optimizer",
            "num_warmup_steps",
            [WARMUP],
        ),
        ("model", "hidden_size", ["positive", "a multiple of 64 (the head size)"]),
        ("model", "vit_pooling_ratio", ["positive", "model.output_grid must be divisible by model.vit_pooling_ratio"]),
        ("model", "output_grid", ["positive", "divisible by model.vit_pooling_ratio"]),
        ("data", "sample_rate", ["at least 1"]),
    ],
)
def test_the_rules_are_those_of_the_errors(section, name, rules):
    assert allowed_values(section, name) == rules


def test_presets_show_what_they_change():
    rows = configuration_page.page().splitlines()
    assert "| `model.hidden_size` | `768` |  |  | `1024` | `1024` | `128` |" in rows
    assert "| `optimizer.eps` |" not in "\n".join(rows)
    assert "| `optimizer.do_bias_correction` | `true` | `true` | `true` |" in rows  # of finetuning
    assert any(row.startswith("| `eps` | number | `1.0e-06` |") for row in rows)  # YAML reads 1e-06 as text


@dataclass
class Unexplained:
    size: int = 1
    """How large."""
    colour: int = 2


def test_a_setting_needs_a_docstring(monkeypatch):
    assert attribute_docstrings(Unexplained) == {"size": "How large."}
    monkeypatch.setattr(configuration_page, "SECTIONS", {"train": Unexplained})
    monkeypatch.setattr(configuration_page, "allowed_values", lambda section, name: [])
    with pytest.raises(ValueError, match=r"Unexplained\.colour has no docstring"):
        configuration_page.page()
