"""The measured half of docs/scaling.md."""

from __future__ import annotations

import json
from dataclasses import asdict

from benchmarks.scaling import saves
from benchmarks.scaling.runs import FILE, Run
from benchmarks.scaling.table import stored_sections

DIFFERENT = {"loss": 2e-5, "weights": 3e-3, "moments": 4e-2, "identical": False}
SAME = {"loss": 0.0, "weights": 0.0, "moments": 0.0, "identical": True}
WAYS = {
    "torch": "2.13.0",
    "steps": 20,
    "saved_at": 10,
    "batch": 16,
    "chance": 13.8,
    "rows": [
        {"run": asdict(Run()), "seconds": 1.0, "losses": [13.9, 13.5], **SAME},
        {"run": asdict(Run(grad_cache=True)), "seconds": 1.0, "losses": [13.9, 13.5], **SAME},
        {"run": asdict(Run(4, "fsdp", 4, True, fsdp_ranks=2)), "seconds": 2.0, "losses": [13.9, 13.5], **DIFFERENT},
        {"run": asdict(Run(2, "ddp", precision="bfloat16")), "seconds": 2.0, "losses": [13.9, 13.5], **DIFFERENT},
    ],
    "resumed": [{"before": asdict(Run()), "after": asdict(Run(4, "fsdp", compile="layers")), **DIFFERENT}],
}


def test_every_row_is_shown(tmp_path):
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / FILE).write_text(json.dumps(WAYS))
    (text,) = stored_sections(tmp_path)
    assert "| 1 | one process | 1 | no |  | reference | reference | reference |" in text
    assert "| 1 | one process | 1 | yes |  | identical | identical | identical |" in text
    assert "| 4 | fsdp | 4 | yes | `fsdp_ranks 2` | 2.0e-05 | 3.0e-03 | 4.0e-02 |" in text
    assert "| 2 | ddp | 1 | no | `precision bfloat16` |" in text
    assert "| one process | 4 ranks, fsdp, `compile layers` | 2.0e-05 | 3.0e-03 | 4.0e-02 |" in text
    assert "from 13.9000 to 13.5000" in text


def test_a_machine_without_runs_has_no_section(tmp_path):
    (tmp_path / "machine").mkdir()
    assert stored_sections(tmp_path) == []


def test_saves_are_shown_with_how_long_they_hold_a_step(tmp_path):
    (tmp_path / "machine").mkdir()
    saved = saves.measure("tiny", 1, tmp_path / "run")
    (tmp_path / "machine" / saves.FILE).write_text(json.dumps({"torch": "2.13.0", "rows": [saved]}))
    assert saved["held"]["before"] <= saved["complete"]["before"]
    assert saved["held"]["beside"] < saved["complete"]["beside"]
    (text,) = stored_sections(tmp_path)
    assert f"| tiny | {saved['parameters'] / 1e6:.1f} M |" in text
