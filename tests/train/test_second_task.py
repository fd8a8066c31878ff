"""The trainer with a task that it has never heard of: trains, stops, resumes, saves, loads, evaluates."""

from __future__ import annotations

import inspect
import os
import shutil
import signal
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch

from reserve.cli.app import main
from reserve.config import Config, OptimizerConfig, TrainConfig
from reserve.errors import BadInput, Stopped
from reserve.model import initialization, precision
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.run_checkpoints import list_checkpoints
from reserve.tasks import TASKS
from reserve.tasks.task import Loss
from reserve.train.distributed import Ranks
from reserve.train.evaluate import evaluate_run
from reserve.train.fit import fit
from reserve.train.metrics import read_metrics
from reserve.train.run_folder import read_run
from reserve.train.training import _prepare, per_device
from tests.helpers import classifier_task
from tests.helpers.classifier_task import Classifier, ClassifierConfig, Classify
from tests.helpers.ranks import free_ports, run_ranks
from tests.helpers.tiny import tiny
from tests.helpers.torch_defaults import torch_defaults

MODEL = ClassifierConfig(**asdict(tiny(vocab_size=32, output_grid=(2, 2), init_scale=5.0)))
STEPS, STOP_AFTER = 12, 5


@dataclass(frozen=True)
class StopsAt(Classify):
    """Asks the run to stop, as a scheduler does, in the step that first sees `calls` batches."""

    calls: int = 10**9
    name = "classify"

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", [])

    def settings(self):
        return {name: value for name, value in super().settings().items() if name != "calls"}

    def loss(self, model, batch, group):
        self.seen.append(None)
        if len(self.seen) == self.calls and os.environ.get("RANK", "0") == "0":
            signal.raise_signal(signal.SIGTERM)
        return super().loss(model, batch, group)


def config(steps: int = STEPS, **train) -> Config:
    return Config(
        optimizer=OptimizerConfig(
            learning_rate=2e-3,
            num_train_steps=steps,
            num_warmup_steps=1,
            use_bfloat16_adam=False,
            do_bias_correction=True,
        ),
        train=TrainConfig(batch_size=8, device="cpu", precision="float32", num_workers=0, log_every=1, **train),
    )


def weights(run: Path, model: type[Classifier] = Classifier) -> dict[str, torch.Tensor]:
    return model.from_pretrained(list_checkpoints(run)[-1].path).state_dict()


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(TASKS, "classify", "tests.helpers.classifier_task:Classify")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    fit(Classify(MODEL), folder, config())
    return folder


def test_it_takes_at_most_sixty_lines():
    assert sum(bool(line.strip()) for line in inspect.getsource(classifier_task).splitlines()) <= 60


def test_every_weight_is_trained_and_comes_back(run):
    torch.manual_seed(0)
    fresh = Classify(MODEL).build_model()
    trained = weights(run)
    assert trained.keys() == fresh.state_dict().keys()
    # What a question without sound and spans never touches gets no gradient; its gradient counts as none.
    unused = ("audio_encoder.", "span_encoder.", "head.", "contrastive_scales", "vision_encoder.encoder.cls_projection")
    still = {name for name, value in fresh.state_dict().items() if torch.equal(value, trained[name])}
    assert {name for name in still if not name.startswith(unused)} == set()
    assert not torch.equal(trained["classifier.weight"], fresh.classifier.weight)


def test_the_folder_says_what_the_run_is(run):
    task, settings = read_run(run)
    assert task == Classify(MODEL)
    assert settings.optimizer == config().optimizer
    assert [line["step"] for line in read_metrics(run / "metrics.jsonl")] == list(range(1, STEPS + 1))
    assert {"loss", "accuracy"} <= read_metrics(run / "metrics.jsonl")[0].keys()


def test_what_follows_a_checkpoint_is_called_and_cannot_end_the_run(tmp_path, caplog):
    saved = []

    def hook(folder: Path) -> None:
        saved.append((folder, list(read_metrics(folder / "metrics.jsonl"))[-1]["step"]))
        raise OSError("no space")

    fit(Classify(MODEL), tmp_path, config(5, checkpoint_every=2), on_saved=hook)
    assert saved == [(tmp_path, 2), (tmp_path, 4), (tmp_path, 5)]
    assert "what is to follow a checkpoint failed: no space; the run goes on" in caplog.text
    assert list_checkpoints(tmp_path)[-1].step == 5


def test_stopped_and_resumed_it_is_the_run_that_was_never_interrupted(run, tmp_path):
    with pytest.raises(Stopped, match="SIGTERM") as stopped:
        fit(StopsAt(MODEL, STOP_AFTER), tmp_path, config())
    (checkpoint,) = list_checkpoints(tmp_path)
    assert (checkpoint.step, checkpoint.path) == (STOP_AFTER, stopped.value.checkpoint)
    fit(read_run(tmp_path)[0], tmp_path, config())
    expected, resumed = weights(run), weights(tmp_path)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_torchs_defaults_do_not_change_the_run(run, tmp_path):
    """The program around ours may have set them: the optimiser takes float32 weights only."""
    with torch_defaults(torch.bfloat16):
        fit(Classify(MODEL), tmp_path, config())
        evaluation = evaluate_run(tmp_path, [])
    ours, expected = weights(tmp_path), weights(run)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    assert evaluation.to_json() == evaluate_run(run, []).to_json()


def test_accumulating_gives_what_whole_batches_give(run, tmp_path):
    fit(Classify(MODEL), tmp_path, config(accumulate=2))
    expected, ours = weights(run), weights(tmp_path)
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-3, atol=1e-4)


def test_a_batch_that_does_not_divide_is_named_with_what_divides_it(tmp_path):
    with pytest.raises(ValueError, match=r"train.batch_size must be a multiple of train.accumulate 3; got 8"):
        config(accumulate=3)
    with pytest.raises(ValueError, match=r"a multiple of the 3 devices times train.accumulate 4; got 8"):
        per_device(config(accumulate=4).train, 3)


def test_weights_that_are_loaded_are_not_drawn_first(run, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    base = tmp_path / "base"
    MerlotReserve(MODEL).save_pretrained(base)
    monkeypatch.setattr(initialization, "truncated_normal_", lambda *_: pytest.fail("drew weights"))
    fit(read_run(tmp_path)[0], tmp_path, config(STEPS + 1))
    evaluate_run(tmp_path, [])
    Classifier.from_pretrained(base, num_classes=3)
    Classifier.from_pretrained(list_checkpoints(tmp_path)[-1].path)
    with pytest.raises(pytest.fail.Exception, match="drew weights"):
        Classifier(MODEL)


@pytest.mark.parametrize(("has_bf16", "name"), [(True, "bfloat16"), (False, "float32")])
def test_the_log_says_which_precision_auto_is(tmp_path, monkeypatch, caplog, has_bf16, name):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: has_bf16)
    caplog.set_level("INFO")
    settings = config(1)
    fit(Classify(MODEL), tmp_path, replace(settings, train=replace(settings.train, precision="auto")))
    assert f"1 device(s) of type cpu in {name}, steps 0 to 1" in caplog.text
    assert read_run(tmp_path)[1].train.precision == "auto"


class Dropping(Classifier):
    def forward(self, batch):
        return torch.nn.functional.dropout(super().forward(batch), 0.3)


@dataclass(frozen=True)
class WithDropout(StopsAt):
    """Draws from torch's generator in every step, and reports no metrics of its own."""

    shown_metrics = ("loss",)

    def build_model(self):
        return Dropping(self.model)

    def loss(self, model, batch, group):
        return Loss(super().loss(model, batch, group).total)


def test_dropout_and_no_metrics_resume_as_well(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    fit(WithDropout(MODEL), whole, config())
    with pytest.raises(Stopped):
        fit(WithDropout(MODEL, STOP_AFTER), stopped, config())
    fit(WithDropout(MODEL), stopped, config())
    expected, resumed = weights(whole, Dropping), weights(stopped, Dropping)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    lines = [[line["loss"] for line in read_metrics(folder / "metrics.jsonl")] for folder in (whole, stopped)]
    assert len(lines[0]) == STEPS
    assert lines[0] == lines[1]


def test_it_is_evaluated_by_name(run):
    evaluation = evaluate_run(run, [])
    assert (run / "evaluation.json").is_file()
    assert evaluation.to_json()["step"] == STEPS
    assert 0 <= evaluation.to_json()["accuracy"] <= 1
    assert str(evaluation).startswith("accuracy: ")


def test_it_starts_from_a_pretrained_model(tmp_path, caplog):
    base = MerlotReserve(MODEL)
    base.save_pretrained(tmp_path)
    tuned = Classifier.from_pretrained(tmp_path, num_classes=3)
    assert type(tuned) is Classifier
    assert tuned.classifier.weight.shape == (3, 64)
    assert all(torch.equal(value, tuned.state_dict()[name]) for name, value in base.state_dict().items())
    assert (
        "lacks 2 weights of Classifier, which keep their initial values: classifier.bias, classifier.weight"
        in caplog.text
    )


def _two_ranks(rank: int, ports: list[int], folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(ports[0])
    torch.set_num_threads(1)
    TASKS["classify"] = "tests.helpers.classifier_task:Classify"
    with pytest.raises(Stopped, match="SIGTERM" if rank == 0 else "a signal to another rank"):
        fit(StopsAt(MODEL, STOP_AFTER), folder, config())
    assert list_checkpoints(folder)[-1].step == STOP_AFTER
    os.environ["MASTER_PORT"] = str(ports[1])
    fit(read_run(folder)[0], folder, config())


def test_two_ranks_stop_together_resume_and_give_what_one_gives(run, tmp_path):
    run_ranks(_two_ranks, free_ports(2), tmp_path)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, STEPS + 1))
    expected, both = weights(run), weights(tmp_path)
    for name in expected:
        torch.testing.assert_close(both[name], expected[name], rtol=1e-3, atol=1e-4)
    assert evaluate_run(tmp_path, []).to_json()["step"] == STEPS


@dataclass(frozen=True)
class CannotPrepare(Classify):
    def prepare(self, run, config):
        raise BadInput("nothing here")


@pytest.mark.parametrize(("rank", "error"), [(0, BadInput), (1, RuntimeError)])
def test_every_rank_stops_when_the_first_cannot_prepare(rank, error, tmp_path, monkeypatch):
    monkeypatch.setattr(Ranks, "any", lambda self, flag: True)
    with pytest.raises(error, match=r"nothing here|the first rank could not prepare the data"):
        _prepare(CannotPrepare(MODEL), tmp_path, config(), Ranks(rank, 2, torch.device("cpu")))


def test_a_bar_of_pretraining_is_refused_for_another_task(run, capsys):
    assert main(["evaluate", str(run), "--videos=x", "--times_chance=5"]) == 2
    assert "--times_chance is for pretraining runs" in capsys.readouterr().err
