from __future__ import annotations

import json
from pathlib import Path

from benchmarks.learning.provenance import store


def test_stored_results_name_no_place_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.learning.provenance.RESULTS", tmp_path)
    inside, outside = str(Path.cwd() / "runs" / "one"), str(tmp_path / "sounds")
    path = store("a.json", {"runs": [{"weights": inside, "folder": outside, "share": "1/3", "right": [0.5, None]}]})
    (run,) = json.loads(path.read_text("utf-8"))["runs"]
    assert run == {"weights": "runs/one", "folder": "sounds", "share": "1/3", "right": [0.5, None]}
