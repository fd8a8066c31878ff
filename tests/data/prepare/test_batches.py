"""Preparation with a decoder that takes batches of files gives what a decoder of single files gives."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import re
import time
from functools import partial
from multiprocessing.connection import wait
from types import SimpleNamespace

import numpy as np
import pytest

from reserve.config import DataConfig
from reserve.data import decode
from reserve.data.decode import protocol
from reserve.data.decode.protocol import MediaLimits
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.prepare import batches
from reserve.data.prepare import workers as workers_module
from reserve.data.prepare.jobs import make_job, plan_job
from reserve.data.prepare.running import GRACE_SECONDS
from reserve.data.prepare.video import PreparationSettings
from reserve.data.prepare.videos import prepare_videos
from reserve.data.sources.discover import discover_sources
from reserve.data.store import load_segments
from reserve.errors import BadInput, EnvironmentFailure, NothingPrepared
from tests.helpers.batch_decoder import FailsOn, PyAVInBatches
from tests.helpers.media_files import Sound, click_track, write_media

SECONDS = 12
NAMES = ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Five usable videos, and one that is none."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(NAMES):
        sounds = [Sound(click_track(SECONDS, [1.0 + number, 6.0]))]
        write_media(folder / name, frame_times=[i / 5 for i in range(5 * SECONDS)], sounds=sounds)
        words = [{"word": f"word{number}", "start": i * 0.5, "end": i * 0.5 + 0.5} for i in range(2 * SECONDS)]
        (folder / name).with_suffix(".json").write_text(json.dumps(words))
    (folder / "bad.mp4").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def expected(videos, tmp_path_factory):
    """The report of preparing the videos file by file."""
    return prepare(videos, tmp_path_factory.mktemp("expected"), workers=0)


@pytest.fixture
def use(monkeypatch):
    """Puts a decoder at the head of the table."""

    def use(decoder):
        monkeypatch.setattr(decode, "DECODERS", (decoder, *decode.DECODERS))
        return decoder

    return use


def prepare(videos, out, **options):
    return prepare_videos(discover_sources([videos]), out, DataConfig(), **options)


def outcomes(report):
    return {result.video_id: (result.status, result.reason, result.segments, result.words) for result in report.results}


def assert_same_stores(report, expected, names=NAMES):
    stores, others = (
        {r.video_id: load_segments(r.store) for r in each.results if r.store} for each in (report, expected)
    )
    assert set(stores) == set(names)
    for name in names:
        ours, theirs = stores[name], others[name]
        assert (ours.frames, ours.words, ours.metadata) == (theirs.frames, theirs.words, theirs.metadata)
        for field in ("start", "playback_speed", "log_mel"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


@pytest.mark.parametrize("workers", [0, 1])
def test_same_stores(videos, expected, tmp_path, use, workers):
    decoder = use(PyAVInBatches(batch_size=2))
    seen = []
    report = prepare(videos, tmp_path, workers=workers, on_result=seen.append)
    assert_same_stores(report, expected)
    assert outcomes(report) == outcomes(expected)
    assert sorted(result.video_id for result in seen) == [*NAMES[:2], "bad.mp4", *NAMES[2:]]
    # With workers the frames are decoded in a process of their own.
    assert [len(batch) for batch in decoder.batches] == ([] if workers else [2, 2, 1])
    assert sorted(name for batch in decoder.batches for name in batch) == ([] if workers else NAMES)


def test_second_run_decodes_nothing(videos, tmp_path, use):
    decoder = use(PyAVInBatches())
    prepare(videos, tmp_path, workers=0)
    decoder.batches.clear()
    report = prepare(videos, tmp_path, workers=0)
    assert [result.status for result in report.results].count("unchanged") == 5
    assert decoder.batches == []


def test_stores_of_another_decoder_are_stale_if_one_is_named(videos, tmp_path, use):
    prepare(videos, tmp_path, workers=0, decoder="pyav")
    use(PyAVInBatches())
    for decoder, prepared in (("auto", 0), ("pyav-in-batches", 5), ("auto", 0), ("pyav-in-batches", 0), ("pyav", 5)):
        report = prepare(videos, tmp_path, workers=0, decoder=decoder)
        assert [result.status for result in report.results].count("prepared") == prepared


def test_frames_are_counted_by_decoder(videos, tmp_path, use):
    use(PyAVInBatches())
    summary = prepare(videos, tmp_path, workers=0).summary()
    assert "; frames by pyav-in-batches: 5" in summary
    assert prepare(videos, tmp_path, workers=0).summary().endswith(summary.partition("; ")[2])


def test_decoder_by_name(videos, expected, tmp_path, use):
    decoder = use(PyAVInBatches())
    assert_same_stores(prepare(videos, tmp_path, workers=0, decoder="pyav"), expected)
    assert decoder.batches == []
    with pytest.raises(ValueError, match=r"decoder must be 'auto' or one of 'pyav-in-batches', .*'pyav'.*; got 'x'"):
        prepare(videos, tmp_path, workers=0, decoder="x")


class WaitsForPlans(PyAVInBatches):
    """Takes one file at a time. a.mp4 is decoded once c.mp4 is planned, which fills the queue; b.mp4 once d.mp4 is."""

    def __init__(self, marks):
        super().__init__(batch_size=1)
        self.marks = marks

    def request(self, media, path, times, limits):
        (self.marks / path.name).touch()
        return super().request(media, path, times, limits)

    def frames(self, request):
        if request.path.name in ("a.mp4", "b.mp4"):
            awaited = self.marks / ("c.mp4" if request.path.name == "a.mp4" else "d.mp4")
            end = time.monotonic() + 30
            while not awaited.exists():
                if time.monotonic() > end:
                    raise BadInput(f"{awaited.name} is not planned")
                time.sleep(0.01)
            time.sleep(1)  # its plan arrives
        yield from super().frames(request)


def test_planning_goes_on_as_soon_as_a_batch_leaves_the_queue(videos, expected, tmp_path, use):
    (tmp_path / "marks").mkdir()
    use(WaitsForPlans(tmp_path / "marks"))
    assert outcomes(prepare(videos, tmp_path / "out", workers=1)) == outcomes(expected)


class Refuses(PyAVInBatches):
    """Raises `error` after the first frame of b.mp4."""

    def __init__(self, error):
        super().__init__(batch_size=3)
        self.error = error

    def frames(self, request):
        for frame in super().frames(request):
            yield frame
            if request.path.name == "b.mp4":
                raise self.error


@pytest.fixture
def hanging_time(monkeypatch, tmp_path_factory):
    """A clock that goes on by itself only while a file of the returned folder says that a decoder hangs."""
    marks = tmp_path_factory.mktemp("marks")
    far = 10 * (MediaLimits().max_decode_seconds + GRACE_SECONDS)
    clock = SimpleNamespace(monotonic=lambda: far * len(list(marks.iterdir())))
    monkeypatch.setattr(workers_module, "time", clock)
    monkeypatch.setattr(batches, "wait", lambda handles, timeout: wait(handles, timeout=0.02))
    return marks


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("hang", "took more than 660 s"),
        ("crash", "its decoding process died (signal SIGSEGV)"),
        ("raise", "internal error: MemoryError: out of device memory"),
    ],
)
def test_file_that_stops_the_decoding_process_is_skipped_alone(
    videos, expected, tmp_path, use, hanging_time, way, reason
):
    use(FailsOn("b.mp4", way, hanging_time))
    report = prepare(videos, tmp_path, workers=1)
    assert_same_stores(report, expected, ["a.mp4", "c.mp4", "d.mp4", "e.mp4"])
    assert outcomes(report)["b.mp4"] == ("skipped", reason, 0, 0)
    assert len(list(hanging_time.iterdir())) == (2 if way == "hang" else 0)


def test_planning_goes_on_while_a_batch_is_decoded_but_not_far(videos, tmp_path, monkeypatch):
    taken, settings, limits = [], PreparationSettings(DataConfig(), 0), MediaLimits()
    decoder, files = FailsOn("a.mp4", "hang", tmp_path / "marks", batch_size=1), PyAVDecoder()
    decoder.marks.mkdir()

    def jobs():
        for name in NAMES:
            (source,) = discover_sources([videos / name])
            taken.append(name)
            yield make_job(source, tmp_path, settings)

    # While a.mp4 hangs, time stands still until two more videos have been taken.
    clock = SimpleNamespace(monotonic=lambda: 1e6 if len(taken) >= 3 and list(decoder.marks.iterdir()) else 0.0)
    monkeypatch.setattr(workers_module, "time", clock)
    monkeypatch.setattr(batches, "wait", lambda handles, timeout: wait(handles, timeout=0.02))
    plan = partial(plan_job, settings=settings, decoders=[files], frames_by=decoder)
    results = batches.prepare_in_batches(jobs(), plan, decoder, limits, workers=1, timeout=1e5)
    _, first = next(results)
    assert (first.video_id, first.reason) == ("a.mp4", "took more than 100000 s")
    assert taken == NAMES[:3]
    assert [result.status for _, result in results] == ["prepared"] * 4


def test_end_of_the_decoding_process_from_outside_stops_everything(videos, tmp_path, use):
    children = set(multiprocessing.active_children())
    use(FailsOn("b.mp4", "terminate", tmp_path))
    with pytest.raises(EnvironmentFailure, match="a worker process was ended by SIGTERM"):
        prepare(videos, tmp_path, workers=1)
    assert set(multiprocessing.active_children()) <= children


def test_file_with_bad_frames_is_skipped_alone(videos, expected, tmp_path, use):
    decoder = use(Refuses(BadInput("its frames are scrambled")))
    report = prepare(videos, tmp_path, workers=0)
    assert_same_stores(report, expected, ["a.mp4", "c.mp4", "d.mp4", "e.mp4"])
    assert outcomes(report)["b.mp4"] == ("skipped", "its frames are scrambled", 0, 0)
    assert decoder.batches == [["a.mp4", "b.mp4", "c.mp4"], ["d.mp4", "e.mp4"]]


def test_batch_that_fails_is_decoded_file_by_file(videos, expected, tmp_path, use):
    decoder = use(Refuses(MemoryError("out of device memory")))
    report = prepare(videos, tmp_path, workers=0)
    assert_same_stores(report, expected, ["a.mp4", "c.mp4", "d.mp4", "e.mp4"])
    assert outcomes(report)["b.mp4"] == ("skipped", "internal error: MemoryError: out of device memory", 0, 0)
    assert decoder.batches == [["a.mp4", "b.mp4", "c.mp4"], ["b.mp4"], ["c.mp4"], ["d.mp4", "e.mp4"]]


class FailsOnBatches(PyAVInBatches):
    """Fails before the first frame of any batch of more than one file."""

    def frames_of(self, requests):
        self.batches.append([request.path.name for request in requests])
        if len(requests) > 1:
            raise RuntimeError("too large a batch")
        yield self.frames(requests[0])


def test_decoder_that_fails_on_every_batch(videos, expected, tmp_path, use):
    decoder = use(FailsOnBatches(batch_size=5))
    assert_same_stores(prepare(videos, tmp_path, workers=0), expected)
    assert decoder.batches == [NAMES, *([name] for name in NAMES)]


class Forgets(PyAVInBatches):
    """Returns neither the last file of a batch nor the last frame of c.mp4."""

    def frames_of(self, requests):
        for request in requests[: max(len(requests) - 1, 1)]:
            frames = list(self.frames(request))
            yield iter(frames[:-1] if request.path.name == "c.mp4" else frames)


def test_decoder_that_loses_files_and_frames(videos, expected, tmp_path, use):
    use(Forgets(batch_size=5))
    report = prepare(videos, tmp_path, workers=0)
    assert_same_stores(report, expected, ["a.mp4", "b.mp4", "d.mp4", "e.mp4"])
    reason = "internal error: ValueError: the decoder returned 1 frames for 2 times"
    assert outcomes(report)["c.mp4"] == ("skipped", reason, 0, 0)


class OpensAtOnce(PyAVInBatches):
    """Opens every file before it returns the first iterator; b.mp4 is bad."""

    def frames_of(self, requests):
        if any(request.path.name == "b.mp4" for request in requests):
            raise BadInput("its frames are scrambled")
        return map(self.frames, requests)


def test_decoder_that_refuses_a_file_before_its_turn(videos, expected, tmp_path, use):
    use(OpensAtOnce(batch_size=3))
    report = prepare(videos, tmp_path, workers=0)
    assert_same_stores(report, expected, ["a.mp4", "c.mp4", "d.mp4", "e.mp4"])
    assert outcomes(report)["b.mp4"] == ("skipped", "its frames are scrambled", 0, 0)


class Changes(PyAVInBatches):
    """Passes on what `change` makes of each file's frames."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def frames(self, request):
        return self.change(super().frames(request))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (itertools.cycle, "ValueError: the decoder returned at least 3 frames for 2 times"),
        (
            lambda frames: (frame / 255 for frame in frames),
            "must be a uint8 array [height, width, 3]; the decoder returned float",
        ),
        (lambda frames: (frame[..., :1] for frame in frames), "the decoder returned uint8 [48, 64, 1]"),
        (lambda frames: (frame[:0] for frame in frames), "the decoder returned uint8 [0, 64, 3]"),
        (lambda frames: (frame.tolist() for frame in frames), "the decoder returned list"),
    ],
    ids=["endless", "float", "grey", "empty", "no array"],
)
def test_frames_that_break_the_protocol(videos, tmp_path, use, change, reason):
    use(Changes(change))
    with pytest.raises(NothingPrepared, match=re.escape(reason)):
        prepare(videos, tmp_path, workers=0)


class ReturnsNothing(PyAVInBatches):
    def frames_of(self, requests):
        return iter(())


def test_decoder_that_returns_nothing(videos, tmp_path, use):
    use(ReturnsNothing())
    reason = r"a\.mp4: internal error: RuntimeError: decoder 'pyav-in-batches' returned frames for 0 of 1 files"
    with pytest.raises(NothingPrepared, match=reason):
        prepare(videos, tmp_path, workers=0)


class Slow(PyAVInBatches):
    """Takes 100 s of `clock` between the first and the second frame of a file."""

    def __init__(self, clock):
        super().__init__(batch_size=5)
        self.clock = clock

    def frames(self, request):
        first, *rest = super().frames(request)
        yield first
        self.clock[0] += 100
        yield from rest


def test_time_limit_of_a_file(videos, tmp_path, use, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(protocol, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    use(Slow(clock))
    with pytest.raises(NothingPrepared, match=r"a\.mp4: decoding took more than 50 s"):
        prepare(videos, tmp_path, workers=0, limits=MediaLimits(max_decode_seconds=50))
