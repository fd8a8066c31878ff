"""Small data sets in the format of TVQA: clips of "television series" with frames, sound and subtitles (SPEC 10.8).

A clip is three scenes of a video. Each question singles out a scene by one attribute and asks for another; the wrong
choices include what the clip's other scenes show, so that the moment matters.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reserve.data.decode.protocol import Media
from reserve.data.images import encode_jpeg
from reserve.data.sources.transcripts.loading import load_transcript
from reserve.data.types import Word
from reserve.fs import write_text_atomic
from reserve.synthetic.datasets.files import write_json_lines
from reserve.synthetic.datasets.scenes import SAMPLE_RATE, Stories, Story, TimedScene, frames_between
from reserve.synthetic.datasets.wording import (
    ATTRIBUTES,
    arranged,
    be,
    name_things,
    positions,
    stamp,
    things,
    where,
    wrong_values,
)
from reserve.synthetic.encoding import write_mp3
from reserve.synthetic.narration import COUNTS
from reserve.synthetic.story import Scene

CHOICES = 5
SCENES_PER_CLIP = 3
FRAMES_PER_SECOND = 3
UNTIMED_EVERY = 5
"""Every fifth question does not say when: its `ts` is "nan-nan"."""
SHOWS = {
    "The Big Bang Theory": "bbt",
    "Castle": "castle",
    "Grey's Anatomy": "grey",
    "How I Met You Mother": "met",
    "Friends": "friends",
    "House M.D.": "house",
}
"""Abbreviations of the series; clips take their names in turn."""
FILES = {"train": "tvqa_train.jsonl", "val": "tvqa_val.jsonl", "test": "tvqa_test_public.jsonl"}
SEASONS = {"train": 1, "val": 2, "test": 3}
# By the pause of the narrator after each sentence.
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class _Clip:
    name: str
    show: str
    scenes: tuple[TimedScene, ...]

    @property
    def start(self) -> float:
        """Seconds into the video."""
        return self.scenes[0].start

    @property
    def end(self) -> float:
        return self.scenes[-1].end


def write(stories: Stories, out: Path, *, questions: int, seed: int) -> dict[str, int]:
    """Writes tvqa_qa_release, tvqa_frames, audios and tvqa_subtitles, with `questions` questions about each video;
    returns the number of clips and of each split's questions."""
    written = {"clips": 0}
    qid = 0
    for split, videos in stories.splits().items():
        rng = random.Random(f"tvqa/{seed}/{split}")
        places = positions(CHOICES, rng)
        records: list[dict[str, Any]] = []
        for number, story in enumerate(videos):
            clips = list(_clips(story, split, number))
            with story.open() as media:
                for clip in clips:
                    _write_frames(clip, media, out)
                    _write_sound(clip, media, out)
            _write_subtitles(clips, load_transcript(story.transcript), out)
            asked = [_question(clips[k % len(clips)], next(places), rng) for k in range(questions)]
            records += [_record(record, qid + k, split) for k, record in enumerate(asked)]
            qid += questions
            written["clips"] += len(clips)
        write_json_lines(out / "tvqa_qa_release" / FILES[split], records)
        written[f"{split} questions"] = len(records)
    return written


def _clips(story: Story, split: str, number: int) -> Iterator[_Clip]:
    """Clips of SCENES_PER_CLIP scenes each. What is left over at the end is in none, unless it is all there is."""
    last = max(len(story.scenes) - SCENES_PER_CLIP + 1, 1)
    for index, first in enumerate(range(0, last, SCENES_PER_CLIP)):
        show, short = list(SHOWS.items())[(number + index) % len(SHOWS)]
        prefix = "" if short == "bbt" else f"{short}_"
        name = f"{prefix}s{SEASONS[split]:02d}e{number + 1:02d}_seg01_clip_{index:02d}"
        yield _Clip(name, show, story.scenes[first : first + SCENES_PER_CLIP])


def _write_frames(clip: _Clip, media: Media, out: Path) -> None:
    folder = out / "tvqa_frames" / "frames_hq" / f"{SHOWS[clip.show]}_frames" / clip.name
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames_between(media, clip.start, clip.end, FRAMES_PER_SECOND), 1):
        (folder / f"{number:05d}.jpg").write_bytes(encode_jpeg(frame))


def _write_sound(clip: _Clip, media: Media, out: Path) -> None:
    short = SHOWS[clip.show]
    folder = out / "audios" / ("bbt_new" if short == "bbt" else short) / f"{short}_audios"
    folder.mkdir(parents=True, exist_ok=True)
    write_mp3(folder / f"{clip.name}.mp3", media.sound(clip.start, clip.end, sample_rate=SAMPLE_RATE), SAMPLE_RATE)


def _write_subtitles(clips: Sequence[_Clip], words: Sequence[Word], out: Path) -> None:
    folder = out / "tvqa_subtitles"
    folder.mkdir(parents=True, exist_ok=True)
    for clip in clips:
        spoken = [word for word in words if clip.start <= word.start and word.end <= clip.end]
        blocks = [
            f"{number}\n{_srt_time(line[0].start - clip.start)} --> {_srt_time(line[-1].end - clip.start)}\n"
            + " ".join(word.text for word in line)
            for number, line in enumerate(_sentences(spoken), 1)
        ]
        write_text_atomic(folder / f"{clip.name}.srt", "\n\n".join(blocks) + "\n")


def _sentences(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Words between pauses."""
    line: list[Word] = []
    for word in words:
        if line and word.start - line[-1].end > _PAUSE_SECONDS:
            yield line
            line = []
        line.append(word)
    if line:
        yield line


def _srt_time(seconds: float) -> str:
    return stamp(seconds, ":").replace(".", ",")


def _question(clip: _Clip, position: int, rng: random.Random) -> dict[str, Any]:
    """A question about one scene of a clip, without its id."""
    timed = rng.choice(clip.scenes)
    scene = timed.scene
    others = [other.scene for other in clip.scenes if other is not timed]
    asked = rng.choice([kind for kind in _QUESTIONS if _singles_out(kind, scene, others)])
    right = ATTRIBUTES[asked].of(scene)
    likely = [ATTRIBUTES[asked].of(other) for other in others]
    order = arranged(right, wrong_values(asked, right, CHOICES - 1, rng, likely=likely), position, rng)
    text = _QUESTIONS[asked](scene)
    start, end = timed.start - clip.start, timed.end - clip.start
    return {
        **{f"a{number}": _answer(asked, value, scene) for number, value in enumerate(order)},
        "answer_idx": position,
        "q": text,
        "show_name": clip.show,
        "ts": f"{start:.2f}-{end:.2f}",
        "vid_name": clip.name,
    }


_QUESTIONS = {
    "colour": lambda scene: f"What colour {be(scene)} the {things(scene)}?",
    "place": lambda scene: f"Where {be(scene)} the {scene.colour} {things(scene)}?",
    "motion": lambda scene: f"How {'does' if scene.count == 1 else 'do'} the {scene.colour} {things(scene)} move?",
    "shape": lambda scene: f"What {be(scene)} {where(scene.place)}?",
}
_NAMED_BY = {"colour": ("shape",), "place": ("colour", "shape"), "motion": ("colour", "shape"), "shape": ("place",)}


def _singles_out(asked: str, scene: Scene, others: Sequence[Scene]) -> bool:
    """Whether the words of a question fit only one scene of the clip."""
    named = _NAMED_BY[asked]
    return all(any(ATTRIBUTES[kind].of(scene) != ATTRIBUTES[kind].of(other) for kind in named) for other in others)


def _answer(asked: str, value: Any, scene: Scene) -> str:
    if asked == "shape":
        return f"{COUNTS[scene.count - 1].capitalize()} {name_things(value, scene)}."
    return f"The {things(scene)} {ATTRIBUTES[asked].clause(value, scene)}."


def _record(record: dict[str, Any], qid: int, split: str) -> dict[str, Any]:
    """A question with its id, in the order of the fields of the data set."""
    answers = {name: record[name] for name in (f"a{number}" for number in range(CHOICES))}
    label = {} if split == "test" else {"answer_idx": record["answer_idx"]}
    ts = "nan-nan" if qid % UNTIMED_EVERY == UNTIMED_EVERY - 1 else record["ts"]
    return {
        **answers,
        **label,
        "q": record["q"],
        "qid": qid,
        "show_name": record["show_name"],
        "ts": ts,
        "vid_name": record["vid_name"],
    }
