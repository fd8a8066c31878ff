from __future__ import annotations

import os
import resource
import signal

import pytest
import torch

from reserve.errors import CheckpointError
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.decay import parameter_groups
from reserve.train.state import Progress, list_checkpoints, load_trainer_state, save_checkpoint
from reserve_kernels import BF16AdamW
from tests.helpers.tiny import tiny

SMALL = tiny(vocab_size=32, vit_patch_size=16, output_grid=(2, 2))


@pytest.fixture
def trained():
    torch.manual_seed(0)
    model = MerlotReserve(SMALL)
    optimizer = BF16AdamW(parameter_groups(model, 0.1), lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return model, optimizer


def test_only_the_latest_checkpoints_are_kept(tmp_path, trained):
    for step in (5, 10, 15, 100000000 - 1):
        save_checkpoint(tmp_path, Progress(step), *trained, keep=2)
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [15, 99999999]


def test_a_half_written_checkpoint_does_not_count(tmp_path, trained):
    save_checkpoint(tmp_path, Progress(1), *trained, keep=3)
    (tmp_path / "checkpoints" / "step_00000002.partial").mkdir()
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [1]


def test_a_run_without_checkpoints_has_none(tmp_path):
    assert list_checkpoints(tmp_path) == []


def test_moments_and_generator_come_back_bit_for_bit(tmp_path, trained):
    model, optimizer = trained
    checkpoint = save_checkpoint(tmp_path, Progress(1), model, optimizer, keep=1)
    expected = torch.rand(4)
    again = BF16AdamW(parameter_groups(model, 0.1), lr=1e-3)
    load_trainer_state(checkpoint, again)
    assert torch.equal(torch.rand(4), expected)
    for before, after in zip(optimizer.state.values(), again.state.values(), strict=True):
        assert after["m"].dtype == after["v"].dtype == torch.bfloat16
        assert torch.equal(before["m"].view(torch.int16), after["m"].view(torch.int16))
        assert torch.equal(before["v"].view(torch.int16), after["v"].view(torch.int16))


def test_progress_comes_back(tmp_path, trained):
    progress = Progress(3, 20, 23, 5)
    checkpoint = save_checkpoint(tmp_path, progress, *trained, keep=1)
    assert load_trainer_state(checkpoint, trained[1]) == progress


def test_a_checkpoint_of_an_older_version_has_no_place(tmp_path, trained):
    checkpoint = save_checkpoint(tmp_path, Progress(3, 20, 23, 5), *trained, keep=1)
    path = checkpoint.path / "trainer.pt"
    state = torch.load(path, weights_only=True)
    torch.save({name: state[name] for name in ("step", "optimizer", "rng")}, path)
    assert load_trainer_state(checkpoint, trained[1]) == Progress(3)


def test_the_weights_in_a_checkpoint_are_a_pretrained_model(tmp_path, trained):
    model, optimizer = trained
    checkpoint = save_checkpoint(tmp_path, Progress(1), model, optimizer, keep=1)
    loaded = MerlotReserve.from_pretrained(checkpoint.path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def test_remains_of_crashed_checkpoints_are_removed_by_the_next(tmp_path, trained):
    (tmp_path / "checkpoints" / "step_00000002.partial").mkdir(parents=True)
    save_checkpoint(tmp_path, Progress(5), *trained, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000005"]


def test_every_file_is_on_the_disk_before_the_checkpoint_counts(tmp_path, trained, monkeypatch):
    written = []
    monkeypatch.setattr(os, "fsync", lambda number: written.append(os.fstat(number).st_ino))
    checkpoint = save_checkpoint(tmp_path, Progress(1), *trained, keep=1)
    assert {path.stat().st_ino for path in checkpoint.path.iterdir()} <= set(written)


def test_the_optimizer_keeps_its_own_settings(tmp_path, trained):
    """Otherwise a run resumed with another decay would record it in config.yaml and train with the old one."""
    model, optimizer = trained
    checkpoint = save_checkpoint(tmp_path, Progress(1), model, optimizer, keep=1)
    other = BF16AdamW(parameter_groups(model, 0.5), lr=1e-2, betas=(0.8, 0.9), eps=1e-3)
    load_trainer_state(checkpoint, other)
    assert [(g["weight_decay"], g["lr"], g["betas"], g["eps"]) for g in other.param_groups] == [
        (0.5, 1e-2, (0.8, 0.9), 1e-3),
        (0.0, 1e-2, (0.8, 0.9), 1e-3),
    ]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no zip archive"),
        lambda path: path.write_bytes(path.read_bytes()[:9999]),
        lambda path: torch.save([1], path),
        lambda path: torch.save({"step": 1}, path),
        lambda path: torch.save({"optimizer": SMALL}, path),
        lambda path: torch.save(torch.load(path, weights_only=True) | {"place": -1, "examples": 5}, path),
        lambda path: torch.save(torch.load(path, weights_only=True) | {"place": 1, "examples": 0}, path),
    ],
    ids=["missing", "empty", "garbage", "cut", "list", "incomplete", "other objects", "place", "no examples"],
)
def test_a_damaged_state_is_named_with_a_remedy(tmp_path, trained, damage):
    model, optimizer = trained
    checkpoint = save_checkpoint(tmp_path, Progress(1), model, optimizer, keep=1)
    damage(checkpoint.path / "trainer.pt")
    with pytest.raises(CheckpointError, match=r"step_00000001.trainer\.pt is missing or damaged; without"):
        load_trainer_state(checkpoint, optimizer)


def test_a_diverged_model_replaces_no_checkpoint(tmp_path, trained):
    """It could not be loaded again; a few of them would push out all that can."""
    model, optimizer = trained
    save_checkpoint(tmp_path, Progress(1), model, optimizer, keep=1)
    with torch.no_grad():
        model.head.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"diverged .* after step 2 head.weight holds numbers that are not finite"):
        save_checkpoint(tmp_path, Progress(2), model, optimizer, keep=1)
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [1]


@pytest.fixture
def small_disk():
    """Files that the test writes may have `limit` bytes; writing more fails as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(("limit", "name"), [(10_000, "model.safetensors"), (2_000_000, "trainer.pt")])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, trained, small_disk, limit, name):
    model, optimizer = trained
    for state in optimizer.state.values():  # larger than the weights
        state["m"] = torch.zeros(2_000_000 // len(optimizer.state), dtype=torch.bfloat16)
    small_disk(limit)
    with pytest.raises(OSError, match=f"cannot write .*{name}"):
        save_checkpoint(tmp_path, Progress(1), model, optimizer, keep=1)
    assert list_checkpoints(tmp_path) == []
