"""Writes synthetic narrated videos: drawn scenes with sound and speech as mp4, captions and metadata."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from reserve.data.types import Word
from reserve.fs import replacing
from reserve.synthetic.drawing import scene_frames
from reserve.synthetic.encoding import write_video
from reserve.synthetic.narration import narrate
from reserve.synthetic.sounds import scene_sound
from reserve.synthetic.speech import Voice, speak
from reserve.synthetic.story import Scene, Split, plan_story, story_rng
from reserve.synthetic.transcripts import info_json, webvtt

FRAME_RATE = 5
"""Frames a second: enough to see the motions, and a third less time to make a video than with 10."""
SHORTEST_SECONDS = 92.0
"""Long enough for the 16 segments of an example at 5 s each, wherever the first one starts (SPEC 1)."""
MOST_SCENES = 40
PAUSE_SECONDS = 0.25
"""Pause of the narrator between two scenes; the sound goes on."""
SPEECH_LOUDNESS = 0.08
"""RMS of the speech, relative to full scale; the sound mixed with it is a little louder."""
VOICES = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-us+f2", "en-us+m3", "en-us+f4", "en-gb-x-rp+f3")


@dataclass(frozen=True, slots=True)
class VideoTask:
    """One video to make. Seed, split and index determine its content."""

    folder: Path
    seed: int
    split: Split
    index: int

    @property
    def path(self) -> Path:
        return self.folder / f"story-{self.index:04d}.mp4"


def make_videos(
    out: str | Path,
    *,
    videos: int,
    seed: int = 0,
    held_out: int | float = 0.2,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Path], list[Path]]:
    """Makes `videos` narrated videos in `out`/train and `out`/heldout; returns the mp4 files of each, in order.

    Each video is NAME.mp4 (h264, 320x192, 5 frames/s; AAC, 22050 Hz, mono; at least 92 s), NAME.en.vtt (every word
    timed, as on YouTube) and NAME.info.json (title, description, tags, the scenes as chapters). `held_out` is how many
    of the videos go to `heldout`: a number, or a fraction as a float below 1, which is rounded up. Every second scene
    of a held-out video shows a pair of colour and shape that no training video has; see `reserve.synthetic.story`.

    The scenes and words of a video depend only on (`seed`, split, index in the split); exact times and samples also
    depend on the version of espeak-ng. `workers` processes share the work (default: one per core, at most 8).
    `progress(done, videos)` is called after each video. Raises ValueError if a number is out of range, ImportError
    naming the extra to install if a package is missing, and OSError if `out` cannot be written.
    """
    held = _held_out_count(videos, held_out)
    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers}")
    _require_packages()
    tasks = []
    splits: tuple[tuple[Split, int], ...] = (("train", videos - held), ("heldout", held))
    for split, count in splits:
        folder = Path(out) / split
        folder.mkdir(parents=True, exist_ok=True)
        tasks += [VideoTask(folder, seed, split, index) for index in range(count)]
    for done, _ in enumerate(_make_all(tasks, min(workers, videos)), 1):
        if progress is not None:
            progress(done, videos)
    paths = [task.path for task in tasks]
    return paths[: videos - held], paths[videos - held :]


def make_video(task: VideoTask) -> Path:
    """Makes one video and its sidecar files. The mp4 comes last and atomically: if it exists, so does the rest."""
    scenes, cues, starts, audio, sample_rate = _narrated(task)
    duration = len(audio) / sample_rate
    task.path.with_suffix(".en.vtt").write_text(webvtt(cues), "utf-8")
    task.path.with_suffix(".info.json").write_text(info_json(task.path.stem, scenes, starts, duration), "utf-8")
    boundaries = [round(start * FRAME_RATE) for start in (*starts, duration)]
    frames = (
        frame
        for scene, first, last in zip(scenes, boundaries, boundaries[1:], strict=False)
        for frame in scene_frames(scene, (last - first) / FRAME_RATE, FRAME_RATE)
    )
    with replacing(task.path) as temporary:
        write_video(temporary, frames, FRAME_RATE, audio, sample_rate)
    return task.path


def _narrated(task: VideoTask) -> tuple[list[Scene], list[list[Word]], list[float], np.ndarray, int]:
    """Scenes, captions, scene starts in seconds, waveform float32 in [-1, 1] and its sample rate in Hz."""
    rng = story_rng(task.seed, task.split, task.index, "words")
    noise = np.random.default_rng([task.seed, task.index, task.split == "heldout"])
    voice = Voice(rng.choice(VOICES), rng.randint(162, 178), rng.randint(35, 65), rng.randint(35, 65))
    scenes: list[Scene] = []
    cues: list[list[Word]] = []
    starts: list[float] = []
    pieces: list[np.ndarray] = []
    now = 0.0
    for scene in plan_story(task.seed, task.split, task.index, MOST_SCENES):
        sentences = narrate(scene, rng)
        speech = speak(", ".join(sentences) + ".", voice)
        seconds = math.ceil((PAUSE_SECONDS + len(speech.waveform) / speech.sample_rate) * FRAME_RATE) / FRAME_RATE
        sound = scene_sound(scene, seconds, speech.sample_rate, noise)
        offset = round(PAUSE_SECONDS / 2 * speech.sample_rate)
        loudness = max(float(np.sqrt(np.mean(speech.waveform**2))), 1e-9)
        sound[offset : offset + len(speech.waveform)] += speech.waveform * (SPEECH_LOUDNESS / loudness)
        cues += _cues(speech.words, sentences, now + offset / speech.sample_rate)
        scenes.append(scene)
        starts.append(now)
        pieces.append(sound)
        now = round(now + seconds, 6)
        if now >= SHORTEST_SECONDS:
            break
    return scenes, cues, starts, np.clip(np.concatenate(pieces), -1, 1), speech.sample_rate


def _cues(words: list[Word], sentences: list[str], shift: float) -> Iterator[list[Word]]:
    """One caption per sentence, its words shifted by `shift` seconds."""
    first = 0
    for sentence in sentences:
        last = first + len(sentence.split())
        yield [Word(word.text, word.start + shift, word.end + shift) for word in words[first:last]]
        first = last


def _make_all(tasks: list[VideoTask], workers: int) -> Iterator[Path]:
    """Makes the videos, in this process if `workers` is 1. Others are spawned, since a fork is unsafe with threads."""
    if workers == 1:
        yield from map(make_video, tasks)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(make_video, tasks)


def _held_out_count(videos: int, held_out: int | float) -> int:
    if videos < 1:
        raise ValueError(f"videos must be at least 1; got {videos}")
    fraction = isinstance(held_out, float) and held_out < 1
    held = math.ceil(videos * held_out) if fraction else int(held_out)
    if held_out < 0 or held > videos:
        raise ValueError(f"held_out must be a fraction in [0, 1) or a number of videos up to {videos}; got {held_out}")
    return held


def _require_packages() -> None:
    """Raises ImportError if a required package is missing: once, rather than in every worker."""
    for package, extra in (("av", "video"), ("PIL", "train"), ("espeakng_loader", "demo")):
        if find_spec(package) is None:
            raise ImportError(f"synthetic videos need {package}: pip install 'merlot-reserve[{extra}]'", name=package)
