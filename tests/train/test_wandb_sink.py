"""Weights & Biases: the calls, one W&B run for a run's folder, and a start without the package or the network."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType

import pytest

from reserve.cli.app import _EXTRAS
from reserve.train import wandb_sink
from reserve.train.fit import fit
from reserve.train.wandb_sink import ID_NAME, WeightsAndBiases, check_wandb, wandb_sinks
from tests.helpers.classifier_task import Classify
from tests.train.test_second_task import MODEL, config

needs_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed (the extra wandb)")


class FakeRun:
    def __init__(self, calls: list[tuple]) -> None:
        self.calls = calls

    def define_metric(self, name, **named):
        self.calls.append(("define_metric", name, named))

    def log(self, values):
        self.calls.append(("log", values))

    def finish(self, **named):
        self.calls.append(("finish", named))


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    """The calls of a fake wandb."""
    module, made = ModuleType("wandb"), []

    def init(**named):
        made.append(("init", named))
        return FakeRun(made)

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "60")
    return made


def test_a_first_start_makes_a_run_and_a_resumed_one_continues_it(tmp_path, calls):
    settings = {"task": "pretrain", "train": {"seed": 0}}
    for failed in (True, False):
        sink = WeightsAndBiases(tmp_path, "videos", settings)
        sink.write(3, {"loss": 1.5})
        sink.close(failed=failed)
    identity = (tmp_path / ID_NAME).read_text().strip()
    assert len(identity) == 16
    one = {"project": "videos", "id": identity, "resume": "allow", "dir": str(tmp_path), "name": tmp_path.name}
    start = [
        ("init", one | {"config": settings}),
        ("define_metric", "step", {}),
        ("define_metric", "*", {"step_metric": "step"}),
        ("log", {"step": 3, "loss": 1.5}),
    ]
    assert calls == [*start, ("finish", {"exit_code": 1}), *start, ("finish", {"exit_code": 0})]


def test_nothing_is_sent_without_a_project(tmp_path, calls):
    assert wandb_sinks(tmp_path, "", {}) == []
    assert calls == []


def test_a_first_start_that_wandb_refuses_says_what_to_do(tmp_path, calls, monkeypatch):
    monkeypatch.setattr(sys.modules["wandb"], "init", lambda **_: (_ for _ in ()).throw(ValueError("no API key")))
    with pytest.raises(RuntimeError, match=r"no API key\. Log in with `wandb login`, set WANDB_MODE=offline"):
        wandb_sinks(tmp_path, "videos", {})
    assert not (tmp_path / ID_NAME).exists()


def test_a_resumed_run_goes_on_without_the_network(tmp_path, calls, monkeypatch, caplog):
    (tmp_path / ID_NAME).write_text("abc\n")
    monkeypatch.setattr(sys.modules["wandb"], "init", lambda **_: (_ for _ in ()).throw(ConnectionError("no route")))
    assert wandb_sinks(tmp_path, "videos", {}) == []
    assert "this start is not shown by Weights & Biases: no route" in caplog.text


def test_a_damaged_id_is_named_and_not_sent(tmp_path, calls):
    (tmp_path / ID_NAME).write_text("../x")
    with pytest.raises(ValueError, match=r"wandb_id must hold the id of a W&B run; got '\.\./x'"):
        WeightsAndBiases(tmp_path, "videos", {})


def test_a_missing_package_is_named_before_anything_is_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_sink, "find_spec", lambda name: None)
    check_wandb("")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'merlot-reserve\[wandb\]'") as caught:
        fit(Classify(MODEL), tmp_path / "run", config(wandb_project="videos"))
    assert _EXTRAS[caught.value.name] == "wandb"
    assert not (tmp_path / "run").exists()


def test_wandbs_folder_of_a_run_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ModuleNotFoundError, match="needs the package wandb"):
        check_wandb("videos")


@needs_wandb
def test_the_real_package_takes_a_run_and_its_resumption_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for first in (0, 2):
        (sink,) = wandb_sinks(tmp_path, "videos", {"task": "pretrain", "train": {"seed": 0}})
        for step in (1, 2):
            sink.write(first + step, {"loss": 1.5, "heldout/recall": float("nan")})
        sink.close(failed=False)
    identity = (tmp_path / ID_NAME).read_text().strip()
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*/run-{identity}.wandb"))
    assert files
    assert all(file.stat().st_size > 0 for file in files)
