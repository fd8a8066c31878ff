"""Which checkpoints a policy keeps."""

from __future__ import annotations

import shutil

import pytest

from reserve.train.retention import Retention

LOSSES = [(10, 5.0), (15, 1.0), (20, None), (25, 2.0), (30, 2.0), (40, 7.0)]


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (Retention(1), {40}),
        (Retention(3), {25, 30, 40}),
        (Retention(9), {10, 15, 20, 25, 30, 40}),
        (Retention(1, every=20), {20, 40}),
        (Retention(1, every=5), {10, 15, 20, 25, 30, 40}),
        (Retention(1, best=1), {15, 40}),
        (Retention(1, best=2), {15, 30, 40}),
        (Retention(1, best=3), {15, 25, 30, 40}),
        (Retention(1, best=9), {10, 15, 25, 30, 40}),
        (Retention(2, every=10, best=1), {10, 15, 20, 30, 40}),
    ],
)
def test_a_policy_keeps(policy, kept):
    assert policy.kept(LOSSES) == kept


def test_damaged_and_old_checkpoints_are_not_the_best(tmp_path):
    folders = [(step, tmp_path / f"step_{step:08d}") for step in (1, 2, 3)]
    for _, folder in folders:
        folder.mkdir()
    (folders[0][1] / "checkpoint.json").write_text("{}")
    Retention(1, best=3).apply(folders)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000003"]


def test_a_kill_while_a_checkpoint_is_removed_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def remove_one_file(folder, **_):
        for path in folder.iterdir() if folder.exists() else ():
            path.unlink()
            raise Killed

    folders = [(step, tmp_path / f"step_{step:08d}") for step in (1, 2)]
    for _, folder in folders:
        folder.mkdir()
        for name in ("a", "b"):
            (folder / name).touch()
    monkeypatch.setattr(shutil, "rmtree", remove_one_file)
    with pytest.raises(Killed):
        Retention(1).apply(folders)
    assert not folders[0][1].exists()
    assert len(list(folders[1][1].iterdir())) == 2
