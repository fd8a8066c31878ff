"""Damaged videos through the whole preparation: each is accounted for, and none crashes, hangs or fills memory."""

from __future__ import annotations

import json
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from reserve.config import DataConfig
from reserve.data.decode.protocol import MediaLimits
from reserve.data.prepare.results import PreparationReport
from reserve.data.prepare.videos import prepare_videos
from reserve.data.sources.discover import discover_sources
from reserve.errors import NothingPrepared
from tests.fuzz.mutations import mutated
from tests.helpers.media_files import Sound, click_track, write_media

SECONDS = 8
MAX_MEMORY = 2 * 2**30
"""Bytes a decoding process may need at most. These pictures take 10 KiB; torch and the libraries take most of it."""
LIMITS = MediaLimits(max_pixels=1 << 20, max_side=4096, max_duration=60.0, max_decode_seconds=120.0)
_FAULTS = ("internal error", "its decoding process died", "took more than", "decoding took more than")


def seed_files(folder: Path) -> dict[str, bytes]:
    """Small good videos in every common container, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    times = [index / 5 for index in range(5 * SECONDS)]
    kinds = {
        "a.mp4": {"cues": [(index, index + 1, f"word{index} more") for index in range(SECONDS)]},
        "a.mov": {"codec": "pcm_s16le"},
        "a.mkv": {"codec": "flac"},
        "a.webm": {"video_codec": "libvpx-vp9", "codec": "libopus"},
        "a.ts": {"codec": "mp2"},
        "a.avi": {"video_codec": "mpeg4", "codec": "mp2"},
        "a.flv": {},
        "a.ogv": {"video_codec": "libvpx", "codec": "libopus"},
    }
    for name, options in kinds.items():
        rate = 48000 if options.get("codec") == "libopus" else 44100
        sound = Sound(click_track(SECONDS, [1.0, 5.0], rate), rate, codec=options.pop("codec", "aac"))
        write_media(folder / name, frame_times=times, sounds=[sound], **options)
    return {name: (folder / name).read_bytes() for name in kinds}


def write_damaged(folder: Path, seeds: dict[str, bytes], count: int, rng: np.random.Generator) -> None:
    """`count` damaged files with a good transcript each."""
    names, contents = list(seeds), list(seeds.values())
    words = [{"word": f"word{index}", "start": index / 2, "end": index / 2 + 0.5} for index in range(2 * SECONDS)]
    for index in range(count):
        of = int(rng.integers(len(names)))
        content = mutated(contents[of], contents[rng.integers(len(contents))], rng)
        name = f"{index:04}{Path(names[of]).suffix}"
        (folder / name).write_bytes(content)
        (folder / name).with_suffix(".json").write_text(json.dumps(words))


def faults(report: PreparationReport) -> list[str]:
    """Results that no file should have."""
    return [f"{result.path}: {result.reason}" for result in report.skipped if result.reason.startswith(_FAULTS)]


def prepare_damaged(
    folder: Path, count: int, seed: int, seeds: dict[str, bytes], workers: int = 2
) -> PreparationReport:
    """Prepares `count` damaged files below `folder`. Raises AssertionError naming the files that broke a promise."""
    videos = folder / "in"
    videos.mkdir(parents=True)
    write_damaged(videos, seeds, count, np.random.default_rng(seed))
    # In a process of its own: processes that this one started before would count, and so would its own size.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        report, used = process.submit(_prepare_and_measure, videos, folder / "out", workers).result()
    assert len(report.results) == count, f"{len(report.results)} results for {count} files"
    assert not (found := faults(report)), "\n".join(found)
    assert used < MAX_MEMORY, f"a process needed {used} bytes"
    return report


def _prepare_and_measure(videos: Path, out: Path, workers: int) -> tuple[PreparationReport, int]:
    """The report of a preparation, and the most bytes that one of its processes needed."""
    try:
        report = prepare_videos(discover_sources([videos]), out, DataConfig(), workers=workers, limits=LIMITS)
    except NothingPrepared as error:
        report = error.report
    return report, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def fuzz(seconds: float, seed: int) -> int:
    """Prepares damaged files for `seconds`; returns how many. A failing batch stays on disk."""
    end, done = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as seeds_folder:
        seeds = seed_files(Path(seeds_folder))
    while time.monotonic() < end:
        folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{seed}-{done}-"))
        prepare_damaged(folder, 200, seed + done, seeds)
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
        done += 200
    return done
