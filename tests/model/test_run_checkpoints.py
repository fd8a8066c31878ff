from __future__ import annotations

from reserve.model.run_checkpoints import REPLACED, checkpoint_folder, list_checkpoints


def test_complete_checkpoints_are_listed_oldest_first(tmp_path):
    for step in (20, 5):
        checkpoint_folder(tmp_path, step).mkdir(parents=True)
    for name in ("step_00000030.partial", "step_00000040.damaged", "step_3", "other"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert [(each.step, each.path.name) for each in list_checkpoints(tmp_path)] == [
        (5, "step_00000005"),
        (20, "step_00000020"),
    ]
    assert list_checkpoints(tmp_path / "nowhere") == []


def test_a_replaced_checkpoint_counts_until_the_new_one_has_its_place(tmp_path):
    new = checkpoint_folder(tmp_path, 7)
    old = new.with_name(new.name + REPLACED)
    old.mkdir(parents=True)
    assert [each.path for each in list_checkpoints(tmp_path)] == [old]
    new.mkdir()
    assert [each.path for each in list_checkpoints(tmp_path)] == [new]
