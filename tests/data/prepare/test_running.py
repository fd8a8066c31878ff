"""Jobs that are made lazily, with a decoder of files and one of batches."""

from __future__ import annotations

import pytest

from reserve.data import decode
from reserve.data.decode import candidates
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.prepare.jobs import make_job
from reserve.data.prepare.running import run_jobs
from reserve.data.prepare.video import PreparationSettings
from reserve.data.sources.discover import discover_sources
from tests.helpers.batch_decoder import PyAVInBatches
from tests.helpers.shard_videos import SpyPyAV, make_videos

SETTINGS = PreparationSettings()


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return discover_sources([make_videos(tmp_path_factory.mktemp("running") / "videos", 4)])


def outcome(job, result):
    return result.video_id, result.status, job.store.exists()


def run(sources, out, decoders, **options):
    taken = []

    def jobs():
        for source in sources:
            taken.append(source.video_id)
            yield make_job(source, out, SETTINGS)

    return taken, run_jobs(jobs(), SETTINGS, decoders, outcome, workers=0, **options)


def test_a_job_is_taken_when_the_one_before_is_done(sources, tmp_path):
    taken, results = run(sources, tmp_path, candidates())
    for number, (job, (video_id, *_)) in enumerate(results, start=1):
        assert len(taken) == number
        assert job.source.video_id == video_id
    assert taken == [source.video_id for source in sources]


def test_a_batch_takes_no_more_than_it_needs(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "DECODERS", (PyAVInBatches(batch_size=2), *decode.DECODERS))
    taken, results = run(sources, tmp_path, candidates())
    _, first = next(results)
    assert len(taken) == 2 or first[0] == "noise.mp4"
    assert dict([first[:2]] + [result[:2] for _, result in results]) == {
        "noise.mp4": "skipped",
        **{f"video {number}.mp4": "prepared" for number in range(4)},
    }


def test_stores_are_kept_only_where_asked(sources, tmp_path, monkeypatch):
    spy = SpyPyAV()
    monkeypatch.setattr(decode, "DECODERS", (spy,))
    decoders = candidates()
    for options, opened in (({}, 5), ({"keep": True}, 1), ({}, 5)):
        spy.opened.clear()
        statuses = [status for _, (_, status, _) in run(sources, tmp_path, decoders, **options)[1]]
        assert len(spy.opened) == opened  # the file that is no video has no store
        assert statuses.count("unchanged") == 5 - opened


class NotForMp4(PyAVInBatches):
    def unsuited(self, info):
        return "its pictures are too small"


class NeverSuited(SpyPyAV):
    name = "never"

    def unsuited(self, info):
        return "it is never right"


def decoded(job, result):
    return result.status, result.decoder, result.decoder_reason, result.warnings


@pytest.mark.parametrize("asked", ["auto", "pyav-in-batches"])
def test_files_that_a_batch_decoder_is_not_for_are_decoded_by_the_next(sources, tmp_path, monkeypatch, asked):
    batches = NotForMp4()
    monkeypatch.setattr(decode, "DECODERS", (batches, NeverSuited(), PyAVDecoder()))
    jobs = [make_job(source, tmp_path, SETTINGS, asked) for source in sources]
    results = [result for _, result in run_jobs(jobs, SETTINGS, candidates(asked), decoded, workers=0)]
    reason = "pyav-in-batches: its pictures are too small; never: it is never right"
    warnings = () if asked == "auto" else (f"its frames come from pyav: {reason}",)
    assert batches.batches == []
    assert [each for each in results if each[0] == "prepared"] == [("prepared", "pyav", reason, warnings)] * 4
