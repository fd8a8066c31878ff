"""Pretrained folders of subclasses: their own weights, buffers and settings, and what another class's folder lacks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from reserve.config import ModelConfig
from reserve.errors import CheckpointError
from reserve.model.initialization import initialize
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.pretrained import Pretrained, pretrained_step
from tests.helpers.tiny import tiny

CONFIG = tiny(rotary="standard")


@dataclass(frozen=True)
class HeadConfig(ModelConfig):
    classes: int = 3


class WithHead(MerlotReserve):
    config_class = HeadConfig

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.classifier = torch.nn.Linear(config.hidden_size, config.classes)
        self.register_buffer("seen", torch.zeros(config.classes))
        self.register_buffer("table", torch.arange(4.0), persistent=False)


HEAD_CONFIG = HeadConfig(**asdict(CONFIG) | {"classes": 5})


@pytest.fixture
def head_folder(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    model = WithHead(HEAD_CONFIG)
    model.seen += 7
    model.save_pretrained(tmp_path / "head", step=3)
    return tmp_path / "head"


def test_a_saved_subclass_loads_unchanged(head_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(1)
    expected = WithHead(HEAD_CONFIG)
    loaded = WithHead.from_pretrained(head_folder)
    assert type(loaded) is WithHead
    assert loaded.config == HEAD_CONFIG
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in expected.named_parameters())
    assert loaded.seen.tolist() == [7] * 5
    assert loaded.table.tolist() == [0, 1, 2, 3]
    assert not [record for record in caplog.records if record.name.startswith("reserve")]
    assert pretrained_step(head_folder) == 3


def test_loading_a_base_folder_warns_of_the_weights_it_lacks(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = WithHead.from_pretrained(folder, classes=2)
    assert (type(loaded), loaded.classifier.weight.shape) == (WithHead, (2, 64))
    assert torch.equal(loaded.head.weight, MerlotReserve.from_pretrained(folder).head.weight)
    assert "lacks 3 weights of WithHead, which keep their initial values: classifier.bias, classifier.weight, seen" in (
        caplog.text
    )


def test_loading_a_subclass_folder_warns_of_the_weights_that_are_ignored(
    head_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = MerlotReserve.from_pretrained(head_folder)
    assert (type(loaded), loaded.config) == (MerlotReserve, CONFIG)
    assert "has 3 weights that MerlotReserve does not use: classifier.bias, classifier.weight, seen" in caplog.text


def test_a_weight_of_the_trunk_is_never_missing_silently(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    del weights["head.bias"]
    safetensors.torch.save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"1 missing: head.bias"):
        WithHead.from_pretrained(folder)


def test_a_weight_of_the_head_is_not_missing_in_its_own_folder(head_folder: Path) -> None:
    path = head_folder / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    del weights["classifier.bias"]
    safetensors.torch.save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"1 missing: classifier.bias"):
        WithHead.from_pretrained(head_folder)


def test_settings_override_those_of_the_folder(folder: Path) -> None:
    loaded = MerlotReserve.from_pretrained(folder, output_grid=(4, 6))
    assert loaded.config == replace(CONFIG, output_grid=(4, 6))
    with pytest.raises(ValueError, match="MerlotReserve has no setting 'classes'; it has audio_num_layers"):
        MerlotReserve.from_pretrained(folder, classes=3)
    with pytest.raises(CheckpointError, match=r"token_embedding.weight is \(20, 64\), not \(21, 64\)"):
        MerlotReserve.from_pretrained(folder, vocab_size=21)
    assert MerlotReserve.from_pretrained(folder, output_grid=[4, 6]).config.output_grid == (4, 6)
    with pytest.raises(ValueError, match=r"MerlotReserve.rotary must be one of 'reserve', 'standard'; got 'zigzag'"):
        MerlotReserve.from_pretrained(folder, rotary="zigzag")
    with pytest.raises(ValueError, match=r"MerlotReserve.init_scale must be float; got str '2'"):
        MerlotReserve.from_pretrained(folder, init_scale="2")


@dataclass(frozen=True)
class RichConfig(ModelConfig):
    dropout: float = 0.0
    gated: bool = False
    ignored: int = -100
    numbers: int = 10**6
    limit: int | None = None
    answers: tuple[str, ...] = ("yes", "no")
    weights: tuple[float, ...] = ()


class WithDrawnHead(MerlotReserve):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.answers = torch.nn.Linear(config.hidden_size, 5)
        initialize(self.answers, 1.0)


def test_what_another_classs_folder_lacks_is_drawn_as_the_class_draws_it(folder: Path) -> None:
    answers = WithDrawnHead.from_pretrained(folder).answers
    assert answers.bias.abs().max() == 0
    # PyTorch's own initial weights are twelve times as large.
    assert 0 < answers.weight.std() < 0.02


class Rich(MerlotReserve):
    config_class = RichConfig


def test_a_subclass_may_have_settings_of_any_kind(tmp_path: Path) -> None:
    for changes in ({}, {"gated": True, "limit": 3, "answers": ("a", "b", "c"), "weights": (0.5, 0.25)}):
        config = RichConfig(**asdict(CONFIG) | changes)
        Rich(config).save_pretrained(tmp_path)
        assert Rich.from_pretrained(tmp_path).config == config


@dataclass(frozen=True)
class ListConfig(ModelConfig):
    answers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StepConfig(ModelConfig):
    step: int = 5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ListConfig(**asdict(CONFIG)), "ListConfig cannot be stored in config.json"),
        (StepConfig(**asdict(CONFIG)), "StepConfig must not have a field 'step'"),
    ],
)
def test_a_configuration_that_would_not_come_back_fails_before_training(config: ModelConfig, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        MerlotReserve(config)


class Normalised(MerlotReserve):
    """Has a buffer that is not floating: the count of batches."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.norm = torch.nn.BatchNorm1d(4)


def test_whole_numbers_that_a_class_does_not_use_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Normalised(CONFIG).save_pretrained(tmp_path)
    assert type(MerlotReserve.from_pretrained(tmp_path)) is MerlotReserve
    assert "norm.num_batches_tracked" in caplog.text


class WithoutSpans(MerlotReserve):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        del self.span_encoder, self.contrastive_scales


def test_a_subclass_may_drop_parts_of_the_trunk(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = WithoutSpans.from_pretrained(folder)
    assert torch.equal(loaded.head.weight, MerlotReserve.from_pretrained(folder).head.weight)
    assert "18 weights that WithoutSpans does not use: contrastive_scales, span_encoder" in caplog.text
    loaded.save_pretrained(tmp_path / "own")
    assert not hasattr(WithoutSpans.from_pretrained(tmp_path / "own"), "span_encoder")


class Holder(Pretrained):
    """Has a MerlotReserve instead of being one, with buffers and a constant computed while it is built."""

    config_class = HeadConfig

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.backbone = MerlotReserve(config)
        self.register_buffer("seen", torch.zeros(config.classes))
        self.register_buffer("table", torch.arange(4.0), persistent=False)
        self.scale = float(torch.full((), config.hidden_size).sqrt())


def test_a_model_that_holds_another_comes_back_whole(tmp_path: Path) -> None:
    model = Holder(HEAD_CONFIG)
    model.seen += 7
    model.save_pretrained(tmp_path)
    loaded = Holder.from_pretrained(tmp_path)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert (loaded.seen.tolist(), loaded.table.tolist(), loaded.scale) == ([7] * 5, [0, 1, 2, 3], 8.0)


def test_restoring_requires_the_same_class_and_settings(folder: Path, head_folder: Path) -> None:
    torch.manual_seed(2)
    model = MerlotReserve(CONFIG)
    model.restore(folder)
    assert torch.equal(model.head.weight, MerlotReserve.from_pretrained(folder).head.weight)
    with pytest.raises(ValueError, match=r"is of a WithHead, not of a MerlotReserve"):
        model.restore(head_folder)
    with pytest.raises(ValueError, match=r"is of a MerlotReserve, not of a WithHead"):
        WithHead(HEAD_CONFIG).restore(folder)
    with pytest.raises(ValueError, match=r"is of a model with rotary standard, not reserve"):
        MerlotReserve(replace(CONFIG, rotary="reserve")).restore(folder)
