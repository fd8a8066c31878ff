"""docs/scaling.md: what is said follows from the steps, and measured sections have their place."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from benchmarks.scaling import page
from benchmarks.scaling.counts import BASE
from benchmarks.scaling.machines import FAST, measured_h100
from benchmarks.scaling.model import Job, Setting, step
from benchmarks.scaling.plot import draw_scaling_model

H100 = measured_h100()


def found(gpus: int, **seconds: float):
    """A step that takes these seconds and nothing else."""
    nothing = dict.fromkeys(("passes", "host", "loss", "optimizer", "weights", "candidates"), 0.0)
    return replace(step(Job(BASE, 1024, gpus, H100, FAST), Setting()), **nothing | seconds)


def test_scaling_stops_before_the_first_doubling_that_gains_little():
    steps = [found(8, passes=8.0), found(16, passes=4.0), found(32, passes=2.0, host=1.0), found(64, passes=1.0)]
    last, after = page.last_worth(steps)
    assert (last.job.gpus, after.job.gpus) == (16, 32)
    assert page.reason(last, after) == "the host"
    assert page.last_worth(steps[:2]) == (steps[1], None)


def test_the_reason_is_what_grows_most_not_what_is_largest():
    before = found(8, passes=8.0, host=1.0, candidates=0.1)
    after = found(16, passes=4.0, host=0.6, candidates=0.9)
    assert page.reason(before, after) == "gathering candidates"


def test_the_loss_counts_from_the_first_batch_above_the_limit():
    batch = page.first_loud(BASE, 512)
    assert page.loss_share(BASE, batch // 2, 512) <= page.NOISE < page.loss_share(BASE, batch, 512)


def test_the_page_says_what_is_modelled_and_takes_measured_sections():
    text = page.page()
    assert text.count("modelled</summary>") == 8
    assert "**Everything below is modelled**" in text
    measured = page.page(["## Measured on a CPU\n\n| a | b |\n| --- | --- |\n| 1 | 2 |"])
    assert measured.index("## Measured on a CPU") < measured.index("## Modelled")
    assert "| a | b |\n| --- | --- |\n| 1 | 2 |\n" in measured


def milliseconds(cell: str) -> float:
    return float(cell.removesuffix(" ms"))


def test_the_parts_of_each_row_make_its_step():
    rows = [
        line.strip("| ").split(" | ")
        for line in page.page().splitlines()
        if re.match(r"\| \d+ \| \d+ \| (ddp|hybrid|fsdp)", line)
    ]
    assert len(rows) == 8 * len(page.GPUS)
    for row in rows:
        parts = sum(milliseconds(cell) for cell in (*row[4:8], row[9]))
        assert milliseconds(row[10]) == pytest.approx(parts, rel=1e-3, abs=0.5)


def test_paragraphs_are_filled_and_tables_are_not():
    table = "| " + "x" * 200 + " |\n| --- |"
    text = page._wrapped("one\ntwo\n\n" + table)
    assert text == "one two\n\n" + table


def test_the_plot_draws_every_curve(tmp_path):
    curves = page.curves()
    assert {(curve.batch, curve.model) for curve in curves} == {
        (b, m) for b in (1024, 32768) for m in ("base", "large")
    }
    draw_scaling_model(curves, tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text()
    assert all(curve.label in text for curve in curves)
    assert "batch 32768" in text
