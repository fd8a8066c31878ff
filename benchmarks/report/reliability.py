"""docs/reliability.md: what became of runs that were killed, filled, corrupted and starved, from stored results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.report.results import RESULTS
from reserve_kernels.bench.report import markdown

FALL_BACKS_FILE, KILLS_FILE, WAITING_FILE = "fall_backs.json", "kill_test.json", "waiting.json"
LIMIT = 0.02
"""Share of its time that a step may wait for data."""
HEAD = """# Reliability

`make bench-report` writes this page from [benchmarks/results](../benchmarks/results); `make test` fails if it is out of
date. `make reliability` measures it anew. What a run does in each case, and the settings, are in
[training.md](training.md#when-something-dies). Nothing here was run on a GPU.
"""
PLACES = ("before the first step", "between saves", "while saving", "of a single process")


def page(folder: Path = RESULTS) -> str:
    """The page's text."""
    sections = {FALL_BACKS_FILE: fall_backs, KILLS_FILE: kills, WAITING_FILE: waiting}
    parts = [
        section(path.parent.name, json.loads(path.read_text("utf-8")))
        for name, section in sections.items()
        for path in sorted(folder.glob(f"*/{name}"))
    ]
    return "\n".join([HEAD, *parts])


def fall_backs(machine: str, found: Mapping[str, Any]) -> str:
    cases = found["cases"]
    done = {name: case for name, case in cases.items() if "not run" not in case}
    rows = [
        (
            case["event"],
            case["answer"],
            _status(case["status"]),
            f"{case['seconds']:.1f} s",
            case["losses compared"] or "–",
            case["differences"] if case["losses compared"] else "–",
        )
        for case in done.values()
    ]
    head = ("what is done to a run", "what it does", "exit status", "until then", "losses compared", "differences")
    missing = [f"- {case['event']}: not run, since {case['not run']}" for case in cases.values() if "not run" in case]
    said = "\n".join(f"- {case['event']}: `{_one_line(case['said'])}`" for case in done.values())
    return "\n\n".join(
        [
            f"""## Done to runs

Pretraining of a small model on videos, on a CPU ({machine}): {len(done)} ways to disturb it, each done to a real run.
"Until then": from what was done to the end of the process, with the steps that were left where the run goes on. A run
that can finish, perhaps after a resume, is compared with one that was left alone: every loss, and every weight and
moment of the last checkpoint, bit for bit. Timeouts are set low, to be waited for; the table names them.""",
            markdown(head, rows),
            *(["\n".join(missing)] if missing else []),
            f"<details><summary>What the runs say</summary>\n\n{said}\n\n</details>\n",
        ]
    )


def kills(machine: str, found: Mapping[str, Any]) -> str:
    columns = ("kills", *(f"kills {place}" for place in PLACES), "losses compared", "tensors compared", "differences")
    rows = [(way, *(counts[name] for name in columns)) for way, counts in found.items() if isinstance(counts, Mapping)]
    total = found["all"]
    head = ("run", *(name.removeprefix("kills ") for name in columns))
    return f"""## Killed at random instants

Runs killed with SIGKILL at random instants and resumed until they are through ({machine}): {total["kills"]} kills,
{total["kills while saving"]} of them while a checkpoint was being written. Each loss that was logged, and every weight
and moment of the last checkpoint, is compared bit for bit with a run that was never killed:
{total["losses compared"]} losses and {total["tensors compared"]} tensors, {total["differences"]} differences. "Of a
single process": a rank, a loading process or the main process alone; the others must then end by themselves, or replace
it. Loading processes change in number from start to start. `make kill-test KILLS=100` kills more, and `make test` four.

{markdown(head, sorted(rows, key=lambda row: row[0] == "all"))}
"""


def waiting(machine: str, found: Mapping[str, Any]) -> str:
    steady, whole = found["share_waiting"], found["share_waiting_with_start"]
    rounds = len(found["rounds"]["loaded"])
    limits = [
        f"{name} {'below' if share < LIMIT else 'above'} the limit of {LIMIT:.0%}"
        for name, share in (("once it trains the share is", steady), ("with its start it is", whole))
    ]
    rows = [
        ("time that steps wait, without the first ones", f"{steady:.2%}"),
        ("the same with the start, when the first batch is loaded", f"{whole:.2%}"),
        ("wait for the first batch", f"{found['seconds_waiting_for_first_batch']:.2f} s"),
        ("examples/s", f"{found['examples_per_second']:.2f}"),
        ("examples/s with one batch repeated from memory", f"{found['examples_per_second_repeated']:.2f}"),
        ("ratio of the two", f"{found['ratio']:.3f}"),
    ]
    return f"""## Waiting for data

The demo's training, from prepared videos, on {found["cores"]} cores with {found["workers"]} loading process
({machine}): the median of {rounds} run(s) of {found["steps"]} steps, in turn with runs that load nothing.
Time that steps wait: {"; ".join(limits)}.
Loading also takes time from the cores that train, which the ratio shows.

{markdown(("", f"median of {rounds}"), rows)}
"""


def _status(status: int | list[int]) -> str:
    return str(status) if isinstance(status, int) else ", ".join(map(str, status))


def _one_line(text: str) -> str:
    return " / ".join(text.replace("`", "'").splitlines())
