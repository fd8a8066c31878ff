"""What step_lease stored, as cases and as the table of docs/kernels/step.md."""

from __future__ import annotations

import json

import pytest

from benchmarks import step_lease
from benchmarks.report import bars, steps, tables
from benchmarks.report.results import load

CASE = "training step, H100, base, 16 examples"


def variant(*milliseconds: float, kernels: float) -> dict:
    return {
        "seconds": [value / 1e3 for value in milliseconds],
        "kinds_ms": {"GEMM": 0.75 * kernels, "attention": 0.25 * kernels},
        "peak_bytes": 48 * 10**9,
        "recompiled": 0,
    }


def found(**session) -> dict:
    machine = {"gpu": {"name": "NVIDIA H100 80GB HBM3"}, "versions": {"torch": "2.11.0"}}
    limits = {"copy_bytes_per_s": 3e12, "matmul_flops_per_s": 800e12}
    session = {"commit": "0123456", "date": "2026-11-27", "config": "base"} | session
    return {
        "facts": {"session": session, "machine": machine, "examples": 16, "flops": 80 * 10**12, **limits},
        "variants": {
            "padded, compiled layers": variant(210, 220, 230, kernels=200),
            steps.SHIPPED: variant(180, 200, 240, 250, kernels=160),
            "padded": {"missing": "out of memory"},
        },
    }


@pytest.fixture
def machines(tmp_path):
    folder = tmp_path / "results" / "a-gpu"
    folder.mkdir(parents=True)
    (folder / "step-0.json").write_text(json.dumps(found(note="before")))
    (folder / "step.json").write_text(json.dumps(found()))
    return load(tmp_path / "results")


def test_the_shipped_variant_is_one_that_step_lease_measures():
    assert steps.SHIPPED in step_lease.VARIANTS


def test_the_shipped_variant_is_ours_and_a_variant_without_times_is_left_out(machines):
    before, case = machines[0].cases
    assert (before.group, case.group) == (f"{CASE}, before", CASE)
    assert list(case.timings) == ["reserve", "padded, compiled layers"]
    ours = case.timings["reserve"]
    assert (ours.low, ours.median, ours.high, ours.fastest) == pytest.approx((0.195, 0.22, 0.2425, 0.18))
    assert case.on_gpu


def test_the_bars_take_the_session_without_a_note(machines):
    rows = [row for row in bars.table(machines, steps.OP).splitlines() if "H100" in row]
    assert [row.split(" | ")[2:] for row in rows] == [
        ["speed against padded, compiled layers", "at least 1.15", "1", "**missed** |"],
        ["MFU", "at least 0.5", "0.455", "**missed** |"],
    ]


def test_the_table_has_the_step_and_its_kernels(machines):
    _, after = tables.step_variants(machines).split("\n\nNVIDIA")
    assert after.splitlines()[0] == " H100 80GB HBM3, base, 16 examples:"
    assert after.splitlines()[4:] == [
        f"| **{steps.SHIPPED}** | 220 ms | 195 ms – 242 ms | 180 ms | 160 ms | 45% | 62% | 48 GB |",
        "| padded, compiled layers | 220 ms | 215 ms – 225 ms | 210 ms | 200 ms | 45% | 50% | 48 GB |",
    ]


def test_without_a_session_there_is_no_table(tmp_path):
    assert tables.step_variants(load(tmp_path)) == ""
