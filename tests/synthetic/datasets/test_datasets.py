import pytest

from reserve.errors import BadInput
from reserve.synthetic.datasets import DATA_SETS, make_data_set


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("task", DATA_SETS)
def test_the_same_videos_and_seed_give_the_same_files(task, short_stories, tmp_path):
    for folder, seed in (("one", 1), ("again", 1), ("other", 2)):
        DATA_SETS[task](short_stories, tmp_path / folder, questions=2, seed=seed)
    assert contents(tmp_path / "one") == contents(tmp_path / "again")
    assert contents(tmp_path / "one") != contents(tmp_path / "other")


def test_all_tasks_are_made(task_data_sets):
    assert sorted(path.name for path in task_data_sets.iterdir()) == sorted(DATA_SETS)


def test_unknown_tasks_and_numbers_are_refused(narrated_videos, tmp_path):
    with pytest.raises(ValueError, match=r"task must be one of vcr, .*; got 'nope'"):
        make_data_set("nope", narrated_videos, tmp_path)
    with pytest.raises(ValueError, match="questions must be at least 1; got 0"):
        make_data_set("vcr", narrated_videos, tmp_path, questions=0)
    with pytest.raises(BadInput, match="train has no videos"):
        make_data_set("vcr", tmp_path, tmp_path / "out")
    assert not list(tmp_path.iterdir())
