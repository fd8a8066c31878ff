from __future__ import annotations

import json

from benchmarks.report import by_machine
from reserve_kernels.bench.interleaved import OURS
from reserve_kernels.log_mel import PRESETS


def row(group: str, implementation: str, threads: int, seconds: float, ratio: float = 1.0) -> dict:
    return {
        "group": group,
        "case": "30 s",
        "threads": threads,
        "implementation": implementation,
        "seconds": seconds,
        "low": seconds,
        "high": seconds,
        "rounds": 21,
        "ours_is_faster_by": ratio,
    }


def result(op: str, rows: list[dict]) -> dict:
    machine = {
        "cpu": "A CPU",
        "cores": 2,
        "gpu": None,
        "python": "3.11",
        "reserve": "0.1.0",
        "versions": {"torch": "2"},
    }
    loops = {"rest_seconds": 0.01, "loop_seconds": 0.02}
    return {"op": op, "device": "cpu", "date": "2026-01-02T03:04:05+00:00", "machine": machine, **loops, "rows": rows}


def stored(tmp_path, *results: dict) -> dict:
    folder = tmp_path / "a-machine" / by_machine.FOLDER
    folder.mkdir(parents=True)
    for found in results:
        (folder / f"{found['op']}-cpu.json").write_text(json.dumps(found))
    return by_machine.stored(tmp_path)


def test_presets_are_shown_beside_their_originals(tmp_path):
    rows = [row("whisper", OURS, t, 0.001) for t in (1, 2)]
    rows += [row("whisper", "openai-whisper", t, 0.006, 6.0) for t in (1, 2)]
    text = by_machine.presets(stored(tmp_path, result("log_mel_spectrogram", rows)))
    assert "| whisper | 30 s | openai-whisper | 6 ms | 1 ms | **6.0x** | 6 ms | 1 ms | **6.0x** |" in text
    assert "All are met." in text


def test_missed_bars_are_named(tmp_path):
    rows = [row("kaldi", OURS, 1, 0.001), row("kaldi", "torchaudio kaldi.fbank", 1, 0.0049, 4.9)]
    rows += [row("kaldi", by_machine.NATIVE_FBANK, 1, 0.0011, 1.1)]
    text = by_machine.presets(stored(tmp_path, result("log_mel_spectrogram", rows)))
    assert "Missed: kaldi, 30 s, 1 thread against torchaudio kaldi.fbank: 4.90." in text


def test_a_page_shows_every_machine_and_what_was_missing(tmp_path):
    rows = [row("whisper", OURS, 1, 0.001)]
    rows += [{"group": "whisper", "case": "30 s", "threads": 1, "implementation": "x", "missing": "not installed"}]
    page = by_machine.page(stored(tmp_path, result("log_mel_spectrogram", rows), result("drop_in", rows)))
    assert "## A CPU, 2 cores" in page
    assert page.count("### ") == 2
    assert "| whisper, 30 s | 1 | x | not installed |  |  |" in page


def test_the_newest_result_is_shown(tmp_path):
    machines = {}
    # A day has many hours, and older results have no hour.
    for name, date in (("a", "2026-03-01"), ("b", "2026-03-01T02:00:00+00:00"), ("c", "2026-03-01T01:59:59+00:00")):
        machines[name] = [result("log_mel_spectrogram", [row("whisper", OURS, 1, 0.001)]) | {"date": date}]
        machines[name][0]["machine"]["cpu"] = name
    assert "Measured on 2026-03-01 with `python -m reserve_kernels.bench log_mel_spectrogram` on b" in (
        by_machine.presets(machines)
    )


def test_how_calls_were_timed_is_what_the_result_says(tmp_path):
    found = result("log_mel_spectrogram", [row("whisper", OURS, 1, 0.001)])
    assert "interleaved loops of 20 ms after 10 ms of rest" in by_machine.presets({"a": [found]})
    del found["loop_seconds"]
    assert "interleaved single calls" in by_machine.presets({"a": [found]})


def test_nothing_stored_is_said(tmp_path):
    empty = by_machine.stored(tmp_path)
    assert by_machine.presets(empty) == by_machine.drop_ins(empty) == by_machine.NOT_MEASURED


def test_sources_name_every_preset():
    assert by_machine.sources().count("\n") == len(PRESETS) + 1
