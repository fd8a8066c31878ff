"""A flipped bit or a cut anywhere in a checkpoint is found, and the file is named with what to do."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reserve.config import TrainConfig
from reserve.errors import CheckpointError, EnvironmentFailure
from reserve.model.manifest import encode_manifest, read_manifest
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.run_checkpoints import list_checkpoints
from reserve.model.tensor_files import StoredFile
from reserve.train.distributed import Ranks
from reserve.train.saving import CheckpointWriter
from reserve.train.state import Progress, restore_checkpoint
from tests.helpers.old_checkpoints import write_old_checkpoint
from tests.helpers.trained_models import new_model, new_optimizer, trained

ALONE = Ranks(0, 1, torch.device("cpu"))
FILES = ("checkpoint.json", "config.json", "model.safetensors", "optimizer.safetensors")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with CheckpointWriter(folder, *trained(), ALONE, TrainConfig()) as checkpoints:
        checkpoints.save(Progress(1, 4, 9, 0))
        checkpoints.save(Progress(2, 8, 9, 0))
    return folder


@pytest.fixture
def both(run, tmp_path) -> Path:
    """A run with the checkpoints of steps 1 and 2."""
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture
def copy(both) -> Path:
    """A run with that of step 2 only, so that there is no other to fall back to."""
    shutil.rmtree(list_checkpoints(both)[0].path)
    return both


@pytest.fixture(scope="module")
def other():
    """A model and an optimiser to load into."""
    model = new_model(seed=9)
    return model, new_optimizer(model)


def spots(size: int, count: int) -> list[int]:
    """Some bits of a file of `size` bytes: of its first and last bytes, and random ones."""
    random.seed(size)
    return [0, 7, 64, 8 * size - 1, *(random.randrange(8 * size) for _ in range(count))]


def damaged(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found(copy, name, other):
    path = list_checkpoints(copy)[-1].path / name
    content = path.read_bytes()
    before = {key: value.clone() for key, value in other[0].state_dict().items()}
    for bit in spots(len(content), 40):
        path.write_bytes(damaged(content, bit))
        with pytest.raises(CheckpointError, match=f"step_00000002/{re.escape(name)}"):
            restore_checkpoint(copy, *other, ALONE)
    # Nothing was loaded.
    assert all(torch.equal(before[key], value) for key, value in other[0].state_dict().items())


def test_a_damaged_checkpoint_gives_way_to_the_one_before(both, run, caplog):
    first, last = list_checkpoints(both)
    content = (last.path / "model.safetensors").read_bytes()
    (last.path / "model.safetensors").write_bytes(damaged(content, 8 * len(content) - 3))
    model = new_model(seed=9)
    optimizer = new_optimizer(model)
    assert restore_checkpoint(both, model, optimizer, ALONE).step == 1
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "step_00000002/model.safetensors is damaged" in warning
    assert "kept as step_00000002.damaged, and the run resumes from step 1: 1 steps are done again" in warning
    # It is out of the way for good, and what was loaded is the state of step 1.
    assert [checkpoint.step for checkpoint in list_checkpoints(both)] == [1]
    assert (both / "checkpoints" / "step_00000002.damaged" / "model.safetensors").is_file()
    expected = load_file(first.path / "model.safetensors")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in expected.items())


def test_one_that_was_set_aside_before_is_replaced(both):
    aside = both / "checkpoints" / "step_00000002.damaged"
    aside.mkdir()
    (aside / "old").touch()
    (list_checkpoints(both)[-1].path / "config.json").unlink()
    model = new_model()
    assert restore_checkpoint(both, model, new_optimizer(model), ALONE).step == 1
    assert not (aside / "old").exists()


def test_a_file_that_cannot_be_read_now_sets_nothing_aside(both, other, monkeypatch):
    """A lost mount is not a damaged checkpoint; a block that the disk cannot read is."""
    code, original = [errno.ESTALE], Path.open

    def fail(path, *arguments, **options):
        if path.parent.name == "step_00000002" and path.name == "model.safetensors":
            raise OSError(code[0], os.strerror(code[0]))
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(EnvironmentFailure, match=r"cannot read .*model.safetensors: Stale file handle"):
        restore_checkpoint(both, *other, ALONE)
    assert [checkpoint.step for checkpoint in list_checkpoints(both)] == [1, 2]
    code[0] = errno.EIO
    assert restore_checkpoint(both, *other, ALONE).step == 1


@pytest.mark.parametrize("name", FILES[:3])
def test_a_flipped_bit_is_found_by_from_pretrained(copy, name):
    path = list_checkpoints(copy)[-1].path / name
    content = path.read_bytes()
    for bit in spots(len(content), 10):
        path.write_bytes(damaged(content, bit))
        with pytest.raises(CheckpointError, match=re.escape(name)):
            MerlotReserve.from_pretrained(path.parent)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_found(copy, name, other):
    path = list_checkpoints(copy)[-1].path / name
    content = path.read_bytes()
    for length in (0, 1, 8, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=re.escape(name)):
            restore_checkpoint(copy, *other, ALONE)
    path.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match=re.escape(name)):
        restore_checkpoint(copy, *other, ALONE)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(copy, name, other):
    (list_checkpoints(copy)[-1].path / name).unlink()
    with pytest.raises(CheckpointError, match=re.escape(name)):
        restore_checkpoint(copy, *other, ALONE)


def test_a_checkpoint_of_another_step_is_found(copy, other):
    folder = list_checkpoints(copy)[-1].path
    folder.rename(folder.with_name("step_00000007"))
    with pytest.raises(CheckpointError, match="a checkpoint of step 7 cannot be at"):
        restore_checkpoint(copy, *other, ALONE)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES])
def test_a_manifest_that_cannot_be_read_now_sets_nothing_aside(both, other, monkeypatch, code):
    original = Path.open

    def fail(path, *arguments, **options):
        if path.parent.name == "step_00000002" and path.name == "checkpoint.json":
            raise OSError(code, os.strerror(code))
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(CheckpointError, match=r"cannot read .*checkpoint.json"):
        restore_checkpoint(both, *other, ALONE)
    assert [checkpoint.step for checkpoint in list_checkpoints(both)] == [1, 2]


def test_a_checkpoint_of_a_newer_version_sets_nothing_aside(both, other, monkeypatch):
    monkeypatch.setattr("reserve.model.manifest._FORMAT", 0)
    with pytest.raises(CheckpointError, match=r"step_00000002.*has the format 1; this version reads 0"):
        restore_checkpoint(both, *other, ALONE)
    assert [checkpoint.step for checkpoint in list_checkpoints(both)] == [1, 2]


def test_where_every_checkpoint_is_damaged_all_are_named(both, other):
    for checkpoint in list_checkpoints(both):
        (checkpoint.path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint that can be loaded: .*step_00000002.*step_00000001"):
        restore_checkpoint(both, *other, ALONE)
    # They stay where they are.
    assert [checkpoint.step for checkpoint in list_checkpoints(both)] == [1, 2]


def _damage_pickle(path: Path, content: bytes) -> None:
    """Replaces the pickle in a file of torch.save."""
    with zipfile.ZipFile(path) as before:
        files = {name: before.read(name) for name in before.namelist()}
    with zipfile.ZipFile(path, "w") as after:
        for name, old in files.items():
            after.writestr(name, content if name.endswith("data.pkl") else old)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no zip archive"),
        lambda path: path.write_bytes(path.read_bytes()[:9999]),
        lambda path: torch.save([1], path),
        lambda path: torch.save({"step": 1}, path),
        lambda path: torch.save({"optimizer": 3}, path),
        lambda path: torch.save({"optimizer": {"param_groups": [3], "state": {}}}, path),
        lambda path: torch.save({"optimizer": MerlotReserve.config_class()}, path),
        lambda path: torch.save({"optimizer": {"param_groups": [], "state": {7: {"m": torch.ones(1)}}}}, path),
        lambda path: torch.save({"optimizer": {"param_groups": [], "state": {7: {"m": "text"}}}}, path),
        lambda path: _damage_pickle(path, b"."),
    ],
    ids=[
        *("empty", "garbage", "cut", "list", "incomplete", "number", "groups", "other objects"),
        *("no parameter", "text", "pop of nothing"),
    ],
)
def test_a_damaged_state_of_an_older_version_is_named(tmp_path, damage, other):
    folder = tmp_path / "checkpoints" / "step_00000001"
    write_old_checkpoint(folder, *trained(), 1)
    damage(folder / "trainer.pt")
    with pytest.raises(CheckpointError, match=r"step_00000001.trainer\.pt is missing or damaged"):
        restore_checkpoint(tmp_path, *other, ALONE)


class _RunsCode:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_executed_and_nobody_is_advised_to(tmp_path, other):
    folder = tmp_path / "checkpoints" / "step_00000001"
    write_old_checkpoint(folder, *trained(), 1)
    torch.save({"optimizer": _RunsCode(tmp_path / "executed")}, folder / "trainer.pt")
    with pytest.raises(CheckpointError, match=r"trainer.pt .*holds more than tensors and plain values") as caught:
        restore_checkpoint(tmp_path, *other, ALONE)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["trainer.pt", "model.safetensors"])
def test_a_pipe_in_a_checkpoint_of_an_older_version_is_named(tmp_path, name, other):
    """Opening it would wait for ever."""
    folder = tmp_path / "checkpoints" / "step_00000001"
    write_old_checkpoint(folder, *trained(), 1)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match=f"{re.escape(name)} is missing or damaged: not a regular file"):
        restore_checkpoint(tmp_path, *other, ALONE)


def test_a_file_with_other_tensors_than_listed_is_named(copy, other):
    """Every checksum is right: checkpoint.json was rewritten for the file."""
    folder = list_checkpoints(copy)[-1].path
    path = folder / "optimizer.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith(".m"))
    save_file(tensors | {name: tensors[name].float()}, path)
    content = path.read_bytes()
    manifest = read_manifest(folder)
    files = {**manifest.files, path.name: StoredFile(len(content), hashlib.sha256(content).hexdigest())}
    (folder / "checkpoint.json").write_bytes(encode_manifest(replace(manifest, files=files)))
    with pytest.raises(CheckpointError, match=f"optimizer.safetensors: {re.escape(name)} is F32 of shape .*, not BF16"):
        restore_checkpoint(copy, *other, ALONE)


@pytest.mark.parametrize(
    "changed", [{"order": 5}, {"order": None}, {"skipped": -1}, {"skipped": "3"}, {"not_finite": -1}, {"place": None}]
)
def test_an_impossible_progress_is_named(copy, changed, other):
    folder = list_checkpoints(copy)[-1].path
    manifest = read_manifest(folder)
    progress = {**manifest.progress, **changed}
    (folder / "checkpoint.json").write_bytes(encode_manifest(replace(manifest, progress=progress)))
    with pytest.raises(CheckpointError, match="a checkpoint of step 2 cannot be at"):
        restore_checkpoint(copy, *other, ALONE)


@pytest.mark.parametrize("place", [{"place": -1, "examples": 5, "seed": 0}, {"place": 1, "examples": 0, "seed": 0}])
def test_an_impossible_place_of_an_older_version_is_named(tmp_path, place, other):
    write_old_checkpoint(tmp_path / "checkpoints" / "step_00000001", *trained(), 1, **place)
    with pytest.raises(CheckpointError, match="a checkpoint of step 1 cannot be at"):
        restore_checkpoint(tmp_path, *other, ALONE)
