"""`reserve export`: one folder with whole weights, from a run or one of its checkpoints."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reserve.cli.app import main
from reserve.config import TrainConfig
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.run_checkpoints import checkpoint_folder
from reserve.train.distributed import Ranks
from reserve.train.export import export_checkpoint
from reserve.train.saving import CheckpointWriter
from reserve.train.state import Progress
from tests.helpers.old_checkpoints import write_old_checkpoint
from tests.helpers.trained_models import train_a_step, trained


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with checkpoints of the steps 1 and 2, whose weights differ."""
    model, optimizer = trained()
    run = tmp_path / "run"
    with CheckpointWriter(run, model, optimizer, Ranks(0, 1, torch.device("cpu")), TrainConfig()) as checkpoints:
        checkpoints.save(Progress(1))
        train_a_step(model, optimizer)
        checkpoints.save(Progress(2))
    return run


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = (MerlotReserve.from_pretrained(folder).state_dict() for folder in (one, other))
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(("arguments", "step"), [([], 2), (["--step=1"], 1), (["--step", "2"], 2)])
def test_a_checkpoint_of_a_run_is_exported(run, tmp_path, arguments, step, capsys):
    out = tmp_path / "new" / "out"
    assert main(["export", str(run), str(out), *arguments]) == 0
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "config.json"}
    checkpoint = checkpoint_folder(run, step)
    assert same_weights(out, checkpoint)
    assert (out / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    assert capsys.readouterr().out == f"{checkpoint} -> {out}\n"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_checkpoint_and_one_of_an_older_version_are_exported(run, tmp_path):
    assert main(["export", str(checkpoint_folder(run, 1)), str(tmp_path / "out")]) == 0
    assert same_weights(tmp_path / "out", checkpoint_folder(run, 1))
    model, optimizer = trained(seed=3)
    write_old_checkpoint(checkpoint_folder(tmp_path / "old", 5), model, optimizer, 5)
    assert main(["export", str(tmp_path / "old"), str(tmp_path / "from_old")]) == 0
    assert same_weights(tmp_path / "from_old", checkpoint_folder(tmp_path / "old", 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "{run}"], "already exists; name a new folder"),
        (["{run}/nowhere", "{out}"], "nowhere is not a folder; name that of a run or of a checkpoint"),
        (["{run}", "{out}", "--step=3"], "has no checkpoint of step 3; it has those of 1, 2"),
        (["{run}/checkpoints/step_00000001", "{out}", "--step=1"], "is one checkpoint; --step chooses among those"),
        (["{run}/checkpoints", "{out}"], "is neither a run with a checkpoint nor a checkpoint's folder"),
        (["{run}", "{out}", "--step=x"], '"step"'),
        (["{run}"], "out"),
    ],
)
def test_wrong_usage_says_what_to_do(run, tmp_path, arguments, message, capsys):
    given = [argument.format(run=run, out=tmp_path / "out") for argument in arguments]
    assert main(["export", *given]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "checkpoint.json"])
def test_a_damaged_checkpoint_is_not_exported(run, tmp_path, name, capsys):
    path = checkpoint_folder(run, 2) / name
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["export", str(run), str(tmp_path / "out")]) == 1
    assert str(path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_shards_without_their_list_are_explained(run, tmp_path, capsys):
    folder = tmp_path / "shards"
    folder.mkdir()
    shutil.copy(checkpoint_folder(run, 2) / "config.json", folder)
    shutil.copy(checkpoint_folder(run, 2) / "model.safetensors", folder / "model-00001-of-00002.safetensors")
    with pytest.raises(ValueError, match=r"holds shards of weights but no checkpoint.json"):
        MerlotReserve.from_pretrained(folder)
    assert main(["export", str(folder), str(tmp_path / "out")]) == 1
    assert "holds shards of weights but no checkpoint.json" in capsys.readouterr().err


def test_a_link_to_nowhere_is_not_replaced(run, tmp_path, capsys):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    assert main(["export", str(run), str(tmp_path / "out")]) == 2
    assert "out already exists; name a new folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="out already exists"):
        export_checkpoint(checkpoint_folder(run, 2), tmp_path / "out")


def test_a_full_disk_is_not_blamed_on_the_checkpoint(run, tmp_path, monkeypatch, capsys):
    def full(_number):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert main(["export", str(run), str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().err
    assert "No space left on device" in printed
    assert f"cannot write {tmp_path}/.out.partial/model.safetensors" in printed
    assert str(run) not in printed
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_dtype_that_checkpoints_do_not_hold_is_named(run, tmp_path, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(checkpoint_folder(run, 2) / "config.json", folder)
    save_file({"w": torch.zeros(2, dtype=torch.float8_e5m2)}, folder / "model.safetensors")
    assert main(["export", str(folder), str(tmp_path / "out")]) == 1
    assert f"{folder}/model.safetensors: w is F8_E5M2; a checkpoint holds I64, " in capsys.readouterr().err
