"""Tables, targets and plots from stored results, and whether those in the repository are up to date."""

from __future__ import annotations

import importlib
import itertools
import json
from dataclasses import replace

import pytest

from benchmarks.report import bars, pages, tables
from benchmarks.report.results import load
from reserve_kernels.bench.report import duration
from reserve_kernels.registry import OPS

JOINT = "rotary_attention, CPU, 1 thread, joint, forward+backward"
PEER = "SDPA, padded and masked"


def benchmark(name: str, median: float, **info) -> dict:
    facts = {"flops": 4e9, "bytes": 1e6, "matmul_flops_per_s": 1e11, "copy_bytes_per_s": 1e10, "length": 640}
    extra = {"op": "rotary_attention", "case": "joint", "implementation": name, **facts, **info}
    stats = {"median": median, "q1": 0.9 * median, "q3": 1.1 * median, "min": 0.8 * median, "rounds": 5}
    return {"group": JOINT, "extra_info": extra, "stats": stats}


def record(benchmarks: list[dict]) -> dict:
    cpu = {"brand_raw": "A CPU", "count": 2, "hz_actual_friendly": "3 GHz"}
    info = {"cpu": cpu, "gpu": None, "versions": {"torch": "2.13.0"}}
    return {
        "machine_info": info,
        "commit_info": {"id": "0123456789abcdef", "dirty": False},
        "datetime": "2026-11-23T12:00:00",
        "benchmarks": benchmarks,
    }


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    (folder / "a-cpu").mkdir(parents=True)
    found = [benchmark("reserve", 0.1, peak_extra_bytes=10), benchmark(PEER, 0.2, peak_extra_bytes=40)]
    (folder / "a-cpu" / "attention.json").write_text(json.dumps(record(found)))
    return load(folder)


@pytest.fixture
def root(tmp_path, results):
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    pages.write(results, root)
    return root


def test_the_pages_of_the_repository_match_the_results():
    assert pages.stale() == []


def test_pages_are_up_to_date_after_writing(results, root):
    assert pages.stale(results, root) == []
    assert pages.write(results, root) == []


@pytest.mark.parametrize(
    "name",
    [
        "docs/benchmarks.md",
        "docs/figures/a-cpu-rotary_attention-speed.svg",
        "docs/scaling.md",
        "docs/figures/scaling-model.svg",
    ],
)
def test_an_edit_by_hand_is_found(results, root, name):
    path = root / name
    path.write_text(path.read_text() + " ")
    assert pages.stale(results, root) == [name]


def test_stored_runs_stand_before_the_model_of_scaling(results, monkeypatch):
    monkeypatch.setattr(pages.table, "stored_sections", lambda: ["## Measured on a-cpu"])
    text = pages.pages(results)["docs/scaling.md"]
    assert 0 < text.index("## Measured on a-cpu\n") < text.index("## Modelled")


def test_new_figures_make_page_and_plots_stale(results, root):
    timings = results[0].cases[0].timings
    timings["reserve"].info["length"] = 641
    timings[PEER].info["peak_extra_bytes"] = 80
    assert set(pages.stale(results, root)) == {
        "docs/benchmarks.md",
        "docs/kernels/attention.md",
        "docs/figures/a-cpu-rotary_attention-speed.svg",
        "docs/figures/a-cpu-rotary_attention-memory.svg",
    }


def test_a_plot_without_results_is_found_and_removed(results, root):
    extra = root / "docs/figures/old.svg"
    extra.write_text("<svg/>")
    assert pages.stale(results, root) == ["docs/figures/old.svg"]
    assert pages.write(results, root) == ["docs/figures/old.svg"]
    assert not extra.exists()


def test_the_table_has_each_implementation_with_its_ratio(results):
    rows = tables.op_table(results[0].cases).splitlines()[2:]
    assert rows == [
        "| CPU, 1 thread, joint, forward+backward | **reserve** | 100 ms | 90 ms – 110 ms |  | 40% | 10 B |",
        f"|  | {PEER} | 200 ms | 180 ms – 220 ms | 2.00x | 20% | 40 B |",
    ]


def test_bars_are_met_or_not_measured(results):
    rows = [row for row in bars.table(results).splitlines() if "joint" in row]
    assert sum("| at least 1.3 | 2 | met |" in row for row in rows) == 1
    assert all("not measured" in row for row in rows if "1 thread" not in row)


def test_bars_that_were_not_measured_are_named_below_the_table(results):
    table, line = bars.measured_table(results).split("\n\n")
    (row,) = table.splitlines()[2:]
    case = "1 thread, joint, forward+backward"
    more = "bars met besides these: 1"  # that it is not slower
    assert row == f"| rotary_attention | CPU | {case}: speed against {PEER} 2 (at least 1.3: met)<br>{more} |"
    assert line.startswith("Not measured: rotary_attention (CPU, 2 threads, joint, forward+backward; CPU, 1 thread, ")
    assert line.count("H100, joint, forward+backward") == 1
    assert line.endswith(").")


def test_bars_of_an_op_and_device_share_a_row_and_those_not_measured_are_named_with_their_figure(results, monkeypatch):
    speeds = [bars.faster("rotary_attention", JOINT, peer, least) for peer, least in ((PEER, 1.5), (PEER, 3), ("x", 1))]
    monkeypatch.setattr(bars, "BARS", speeds)
    table, line = bars.measured_table(results).split("\n\n")
    (row,) = table.splitlines()[2:]
    assert row.endswith(
        f": speed against {PEER} 2 (at least 1.5: met), speed against {PEER} 2 (at least 3: **missed**) |"
    )
    case = "CPU, 1 thread, joint, forward+backward"
    assert line == f"Not measured: rotary_attention ({case}: speed against x)."


def test_bars_for_the_full_table_are_counted_if_met_and_shown_if_missed(results, monkeypatch):
    headline, met, missed = (bars.faster("rotary_attention", JOINT, PEER, least) for least in (1, 1.5, 3))
    others = [replace(bar, in_summary=False) for bar in (met, missed)]
    monkeypatch.setattr(bars, "BARS", [headline, *others])
    (row,) = bars.measured_table(results).splitlines()[2:]
    assert row.endswith(
        f": speed against {PEER} 2 (at least 1: met), speed against {PEER} 2 (at least 3: **missed**)"
        "<br>bars met besides these: 1 |"
    )
    monkeypatch.setattr(bars, "BARS", others[:1])
    assert bars.measured_table(results).splitlines()[2:] == ["| rotary_attention | CPU | bars met: 1 |"]


def test_nothing_is_named_where_all_bars_were_measured(results, monkeypatch):
    monkeypatch.setattr(bars, "BARS", [bar for bar in bars.BARS if bar.value(results) is not None])
    assert "Not measured" not in bars.measured_table(results)


def test_a_bar_that_is_missed_says_so(results):
    case = results[0].cases[0]
    bar = bars.faster("rotary_attention", JOINT, PEER, 2.5)
    assert not bar.met(case.faster_than(PEER))


def stored(tmp_path, *benchmarks: dict):
    folder = tmp_path / "stored" / "m"
    folder.mkdir(parents=True)
    (folder / "x.json").write_text(json.dumps(record(list(benchmarks))))
    return load(tmp_path / "stored")


def test_a_bar_may_be_for_another_of_our_implementations(tmp_path):
    times = {"reserve": 1.0, "reserve, triton only": 2.0, PEER: 3.0}
    machines = stored(
        tmp_path, *(benchmark(name, seconds, peak_extra_bytes=1 / seconds) for name, seconds in times.items())
    )
    (machine,) = machines
    assert bars.faster("", JOINT, PEER, 1.0).value(machines) == (machine, 3.0)
    assert bars.faster("", JOINT, PEER, 1.0, "reserve, triton only").value(machines) == (machine, 1.5)
    bar = bars.Bar("", "", JOINT, PEER, bars.memory, implementation="reserve, triton only")
    assert bar.value(machines) == (machine, pytest.approx(2 / 3))


def test_a_bar_may_be_a_fraction_of_the_machines_limit(tmp_path):
    machines = stored(tmp_path, benchmark("reserve", 0.1))
    bar = bars.Bar("", "", JOINT, "reserve", bars.fraction_of_limit, 0.5)
    # 4 GFLOP at 100 GFLOP/s take 0.04 s.
    assert bar.value(machines) == (machines[0], pytest.approx(0.4))


def test_results_of_another_card_do_not_count(tmp_path):
    joint = "rotary_attention, {}, joint, forward+backward"
    found = [benchmark(name, 1.0) | {"group": joint.format("H200")} for name in ("reserve", "varlen")]
    machines = stored(tmp_path, *found)
    assert machines[0].cases[0].on_gpu
    assert bars.faster("", joint.format("H200"), "varlen", 1.5).value(machines) is not None
    assert all(bar.value(machines) is None for bar in bars.BARS)


@pytest.mark.parametrize("bar", [bar for bar in bars.BARS if f", {bars.GPU}, " in bar.group], ids=lambda bar: bar.what)
def test_a_bar_on_a_gpu_names_a_case_and_implementations_that_are_measured(bar, monkeypatch):
    """A bar that names another case would stay "not measured" for ever."""
    files = {op.name: op.benchmark for op in OPS} | {"training step": "training_step"}
    benchmark = importlib.import_module(f"benchmarks.{files[bar.op]}")
    case = bar.group.removeprefix(f"{bar.op}, {bars.GPU}, ")
    named: set[tuple[str, str]] = set()
    monkeypatch.setattr(benchmark, "cuda_label", lambda: bars.GPU)
    monkeypatch.setattr(benchmark, "on_cuda", lambda *_: None)
    monkeypatch.setattr(benchmark, "publish", lambda _, __, name, *, label, **___: named.add((label, name)))
    run_with_all_parameters(benchmark.test_cuda)
    assert {(case, bar.peer), (case, bar.implementation)} <= named


def run_with_all_parameters(test) -> None:
    marks = [mark.args for mark in test.pytestmark if mark.name == "parametrize"]
    for chosen in itertools.product(*(values for _, values in marks)):
        arguments: dict[str, object] = {}
        for (names, _), value in zip(marks, chosen, strict=True):
            values = value.values if isinstance(value, type(pytest.param())) else value
            arguments |= {names: values} if isinstance(names, str) else dict(zip(names, values, strict=True))
        test(None, **arguments)


def test_a_folder_without_results_is_no_machine(tmp_path):
    (tmp_path / "results" / "empty").mkdir(parents=True)
    assert load(tmp_path / "results") == []


def test_marked_places_are_filled_and_nothing_else():
    text = "a\n<!-- figures: bars -->\nold\n<!-- end -->\nb\n"
    assert pages._filled(text, {"bars": "new"}) == "a\n<!-- figures: bars -->\nnew\n<!-- end -->\nb\n"


def test_an_unknown_place_is_named():
    with pytest.raises(ValueError, match="no figures 'nope'; choose from bars"):
        pages._filled("<!-- figures: nope -->\n<!-- end -->", {"bars": ""})


@pytest.mark.parametrize(("value", "text"), [(2.0, "2 s"), (0.0123, "12.3 ms"), (4.5e-6, "4.5 µs"), (3e-9, "3 ns")])
def test_seconds_have_a_unit(value, text):
    assert duration(value) == text


def test_cpu_seconds_have_a_column_where_they_were_counted(tmp_path):
    (tmp_path / "a-cpu").mkdir()
    found = [benchmark("reserve", 0.1, cpu_seconds=0.15), benchmark(PEER, 0.2, cpu_seconds=0.4)]
    (tmp_path / "a-cpu" / "attention.json").write_text(json.dumps(record(found)))
    head, _, ours, peer = tables.op_table(load(tmp_path)[0].cases).splitlines()
    ends = ("| CPU time |", "| 150 ms |", "| 400 ms |")
    assert all(line.endswith(end) for line, end in zip((head, ours, peer), ends, strict=True))
