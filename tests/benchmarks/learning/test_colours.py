from __future__ import annotations

import json
import shutil

import pytest

from benchmarks.learning.colours import keep_colours


@pytest.mark.parametrize(("task", "files"), [("tvqa", "tvqa_qa_release/*.jsonl"), ("vcr", "*.jsonl")])
def test_questions_about_colours_are_left_as_they_are(task_data_sets, tmp_path, task, files):
    shutil.copytree(task_data_sets / task, tmp_path / task)
    keep_colours(task, tmp_path / task)
    paths = sorted((task_data_sets / task).glob(files))
    assert len(paths) == 3
    kept = dropped = 0
    for path in paths:
        lines = path.read_text("utf-8").splitlines()
        colours = [line for line in lines if "What colour" in line or '"What", "colour"' in line]
        found = (tmp_path / task / path.relative_to(task_data_sets / task)).read_text("utf-8").splitlines()
        assert found == colours
        kept, dropped = kept + len(found), dropped + len(lines) - len(found)
    assert min(kept, dropped) > 0


def test_a_file_without_any_is_refused(tmp_path):
    (tmp_path / "val.jsonl").write_text(json.dumps({"question": ["Where", "is", [0], "?"]}) + "\n")
    with pytest.raises(ValueError, match=r"val\.jsonl has no questions about colours"):
        keep_colours("vcr", tmp_path)
