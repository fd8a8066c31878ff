"""The memory of decoding clips: that it is measured, and that it does not grow."""

from __future__ import annotations

import json

import pytest

from benchmarks import decoding_memory
from benchmarks.decoding_memory import PICTURES, WAYS, Clip, Memory, growth, measure, sample, summary
from benchmarks.report import decoding_memory as report
from tests.helpers.media_files import Sound, click_track, write_media

MB = 10**6


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "a.mp4"
    return [Clip(write_media(path, frame_times=[0, 0.5, 1, 1.5], sounds=[Sound(click_track(2, [0.5]))]), 2)]


def samples(resident, every=100):
    return {"clips": ["a"], "every": every, "resident": resident, "proportional": resident, "seconds": 1.0}


def test_memory_of_this_process_grows_with_what_it_keeps():
    before = Memory.now()
    kept = b"x" * (64 * MB)
    after = Memory.now()
    assert 32 * MB < after.resident - before.resident < 128 * MB
    assert 0 < after.proportional <= after.resident
    assert len(kept) == 64 * MB


def test_a_note_every_few_clips(clips):
    found = sample("PyAV", clips, 10, 3)
    assert (len(found["resident"]), len(found["proportional"]), found["clips"]) == (3, 3, ["a"])


def test_growth_counts_from_when_all_buffers_are_there():
    notes = [100 * MB + 10 * MB * min(place, 9) for place in range(100)]
    assert growth(samples(notes)) == 0
    assert growth(samples([note + place * MB for place, note in enumerate(notes)])) == 81 * MB
    assert summary(samples(notes)).endswith("10000 clips in 1 s, at most 190 MB, +0.0 MB after the first 1000")


def test_what_cannot_run_is_missing_with_the_reason(monkeypatch):
    monkeypatch.setattr(decoding_memory, "write_clips", lambda folder: [])
    found = measure(["PyAV"], 1, 1)  # There are no clips.
    assert "missing" in found["PyAV"]
    assert found["PyAV"]["missing"] in report.text(found | {"other": samples([MB] * 20)})


def test_the_page_has_a_row_for_each_decoder_and_a_plot(tmp_path):
    assert report.stored(tmp_path) == {}
    assert report.text({}) == report.NOT_MEASURED
    ways = {"PyAV": samples([200 * MB] * 20), "torchcodec": samples([300 * MB + place * MB for place in range(20)])}
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / decoding_memory.FILE).write_text(json.dumps({"ways": ways}))
    assert report.stored(tmp_path) == ways
    text = report.text(ways)
    assert "| PyAV | 2,000 | 200 MB | 200 MB | +0 B |" in text
    assert "| torchcodec | 2,000 | 319 MB | 319 MB | +9 MB |" in text
    report.draw(ways, tmp_path / report.FIGURE)
    assert b"</svg>" in (tmp_path / report.FIGURE).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("way", [*WAYS, PICTURES])
def test_memory_does_not_grow_with_the_number_of_clips(way):
    """A picture of 320x180 that each clip kept would be 52 MB here."""
    (found,) = measure([way], 600, 20).values()
    if "missing" in found:
        pytest.skip(found["missing"])
    assert growth(found, 300) < 20 * MB
