"""docs/twenty_million.md: its projections follow from what was measured."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.shards import limits, loading, memory, page, preparing

BYTES = {"pictures": 9e5, "sound": 2.4e6, "text": 1e5, "framing": 2e5, "index": 1e4, "record": 1e4}
SET = {"videos": 10, "segments": 100, "words": 1000, "seconds": 500.0, "skipped": {}, "shards": 1, **BYTES}
RATES = ([2.0, 1.0, 1.5], [1.0, 0.5, 1.0], [9.0, 8.0, 9.0], [20.0, 10.0, 30.0], [8.0, 8.0, 8.0])
LOADING = dict(zip(loading.WAYS, RATES, strict=True))
"""The machine was slower in the second round."""
RESULTS = page.Results(
    "a-cpu",
    {
        "by_stage": {
            "videos": 4,
            "video_seconds": 50.0,
            "segments": 10.0,
            "stages": dict.fromkeys(preparing.STAGES, 0.4),
        },
        "by_processes": {"videos": 8, "rounds": 3, "seconds": {"1": 8.0, "2": 4.0}},
        "sizes": {
            "videos": 10,
            "source_bytes": 10**8,
            "photograph_bytes": 30_000,
            "log_mel": SET,
            "flac": SET | {"sound": 1.2e7},
        },
    },
    {
        "videos": 8,
        "rounds": 3,
        "examples": 9,
        "loading": {"0": LOADING, "2": LOADING},
        "training": {"smallest": LOADING, "demo": LOADING},
    },
    {name: {"count": 1000, "seconds": 0.5, "bytes": 2_000_000} for name in ("listing", "duplicates", "order")},
    {"peak_bytes": {"120": 6e8, "2": 5e8}},
)


@pytest.fixture(scope="module")
def text():
    return page.page(RESULTS)


def rows(text, first_cell):
    return [line for line in text.splitlines() if line.startswith(f"| {first_cell} |")]


def test_bytes_are_projected_by_segments(text):
    a_segment = 36_200
    assert "| **a segment** | **36.2 kB** | **132 kB** |" in text
    assert f"| 20 million videos | {a_segment * 1e9 / 2**40:.0f} TiB | 120 TiB |" in text
    assert "as\nlog-mel" not in text
    assert f"{(a_segment - 9_000 + 30_000) * 1e9 / 2**40:.0f} TiB as log-mel shards" in " ".join(text.split())


def test_core_hours_are_projected_by_segments(text):
    """0.4 s for 10 segments are 11,111 hours for a billion."""
    (row,) = rows(text, "sound")[-1:]
    assert row.endswith("| 400 ms | 11% | 11,111 | 444 USD |")
    assert "100,000 core hours" in text


def test_rates_stand_beside_straight_from_video(text):
    (row,) = rows(text, loading.SHARDS)
    assert row == "| shards | " + " | ".join(["20.0 (10.0x)"] * 4) + " |"


def test_the_bar_is_on_both_ways_of_loading(text):
    assert "gives 10.0x with one process and 10.0x with two: met." in " ".join(text.split())
    slow = {"0": LOADING, "2": LOADING | {loading.SHARDS: [9.0, 4.5, 9.0]}}
    other = page.page(replace(RESULTS, loading=RESULTS.loading | {"loading": slow}))
    assert "10.0x with one process and 4.5x with two: **missed**." in " ".join(other.split())


def test_rates_stand_against_video_with_the_same_sound_and_words(text):
    prose = " ".join(text.split())
    assert "With the same sound and words it is 20.0x and 20.0x." in prose
    assert "too: 20.0x and 20.0x with the same sound and words." in prose


def test_limits_grow_with_the_videos(text):
    (row,) = rows(text, "listing the files, in every worker")
    assert row == "| listing the files, in every worker | 2.8 h | 40 GB |"


def test_memory_stands_beside_the_length(text):
    assert "| 2 minutes | 500 MB |\n| 120 minutes | 600 MB |\n" in text


def test_processes_stand_beside_one(text):
    assert "| 2 | 2.00 | 2.00 |" in text


def test_results_count_when_all_were_measured_on_one_machine(tmp_path):
    files = {
        preparing.FILE: RESULTS.preparing,
        loading.FILE: RESULTS.loading,
        limits.FILE: RESULTS.limits,
        memory.FILE: RESULTS.memory,
    }
    (tmp_path / "a-cpu").mkdir()
    for name, content in files.items():
        assert page.stored(tmp_path) is None
        (tmp_path / "a-cpu" / name).write_text(json.dumps(content))
    assert page.stored(tmp_path) == RESULTS
    (tmp_path / "a-cpu" / preparing.FILE).write_text(json.dumps({"sizes": RESULTS.preparing["sizes"]}))
    assert page.stored(tmp_path) is None
    assert "Not measured yet." in page.page(None)
