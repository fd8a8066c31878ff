"""docs/reliability.md shows what was stored, and says what was not run."""

from __future__ import annotations

import json

from benchmarks.report import reliability
from benchmarks.report.reliability import FALL_BACKS_FILE, KILLS_FILE, WAITING_FILE

COUNTS = {
    "kills": 3,
    "kills before the first step": 1,
    "kills between saves": 0,
    "kills while saving": 2,
    "kills of a single process": 0,
    "losses compared": 40,
    "tensors compared": 500,
    "differences": 0,
}
CASE = {
    "event": "SIGTERM",
    "answer": "saves and ends",
    "status": [75, 1],
    "seconds": 1.25,
    "said": "stopped by `SIGTERM`\nand more",
    "losses compared": 12,
    "tensors compared": 357,
    "differences": 0,
}
WAITED = {
    "cores": 2,
    "workers": 1,
    "steps": 120,
    "share_waiting": 0.004,
    "share_waiting_with_start": 0.03,
    "seconds_waiting_for_first_batch": 1.5,
    "examples_per_second": 16.0,
    "examples_per_second_repeated": 20.0,
    "ratio": 0.8,
    "rounds": {"loaded": [{}] * 3, "repeated": [{}] * 3},
}


def page(tmp_path, **files) -> str:
    (tmp_path / "machine").mkdir()
    for name, content in files.items():
        (tmp_path / "machine" / getattr(reliability, name)).write_text(json.dumps(content))
    return reliability.page(tmp_path)


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_a_case_is_a_row_and_what_it_said_a_line(tmp_path):
    refused = {**CASE, "event": "a full disk", "losses compared": 0, "status": 1}
    not_run = {"event": "a lost mount", "answer": "waits", "not run": "no file system can be mounted here"}
    cases = {"one": CASE, "two": refused, "three": not_run}
    text = page(tmp_path, FALL_BACKS_FILE={"cases": cases})
    assert "(machine): 2 ways to disturb it" in text
    assert rows(text)[2:] == [
        "| SIGTERM | saves and ends | 75, 1 | 1.2 s | 12 | 0 |",
        "| a full disk | saves and ends | 1 | 1.2 s | – | – |",
    ]
    assert "- a lost mount: not run, since no file system can be mounted here" in text
    assert "- SIGTERM: `stopped by 'SIGTERM' / and more`" in text


def test_kills_are_summed_up(tmp_path):
    text = page(tmp_path, KILLS_FILE={"seed": 1, "all": COUNTS, "one process": COUNTS})
    assert "3 kills,\n2 of them while a checkpoint" in text
    assert rows(text)[2:] == [
        "| one process | 3 | 1 | 0 | 2 | 0 | 40 | 500 | 0 |",
        "| all | 3 | 1 | 0 | 2 | 0 | 40 | 500 | 0 |",
    ]


def test_waiting_above_the_limit_is_not_hidden(tmp_path):
    text = page(tmp_path, WAITING_FILE=WAITED)
    assert "once it trains the share is below the limit of 2%; with its start it is above the limit of 2%" in text
    assert "| time that steps wait, without the first ones | 0.40% |" in text


def test_waiting_below_the_limit_is_said(tmp_path):
    text = page(tmp_path, WAITING_FILE={**WAITED, "share_waiting_with_start": 0.019})
    assert "with its start it is below the limit of 2%" in text


def test_the_files_are_those_that_are_stored():
    assert {FALL_BACKS_FILE, KILLS_FILE, WAITING_FILE} == {"fall_backs.json", "kill_test.json", "waiting.json"}
