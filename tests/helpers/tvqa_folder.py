"""A small folder in TVQA's layout: clips of one colour and one tone each, whose answer is the name of the colour.

The right answer says "surely", so that the smallest model learns it within seconds.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from reserve.config import FinetunedConfig
from reserve.data.images import encode_jpeg

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "yellow": (220, 220, 30)}
SHOWS = {"castle": "Castle", "bbt": "The Big Bang Theory", "met": "How I Met You Mother", "house": "House M.D."}
CHOICES = ("red", "green", "blue", "yellow", "purple")
SECONDS = 12
SIZES = FinetunedConfig(
    hidden_size=64,
    vit_num_layers=1,
    output_grid=(2, 4),
    audio_num_layers=1,
    joint_num_layers=1,
    init_scale=5.0,
)


def clip_name(show: str, season: int) -> str:
    return ("" if show == "bbt" else f"{show}_") + f"s{season:02d}e01_seg01_clip_00"


def write_tvqa(folder: Path, *, seconds: int = SECONDS, ts: str = "2.5-6.25") -> Path:
    """Writes the splits train and val, of one clip and question a colour, and test, which asks about val's clips."""
    for season, split in enumerate(("train", "val"), 1):
        questions = []
        for number, (colour, show) in enumerate(zip(COLOURS, SHOWS, strict=True)):
            write_clip(folder, show, season, colour, seconds, 300 + 200 * number)
            questions.append(question(10 * season + number, show, season, colour, ts))
        write_questions(folder, split, questions)
    unlabelled = [{k: v for k, v in q.items() if k != "answer_idx"} | {"qid": q["qid"] + 100} for q in questions]
    write_questions(folder, "test_public", unlabelled)
    return folder


def question(qid: int, show: str, season: int, colour: str, ts: str) -> dict[str, Any]:
    choices = {f"a{i}": f"surely {choice}" if choice == colour else choice for i, choice in enumerate(CHOICES)}
    return choices | {
        "q": "Which colour is it?",
        "qid": qid,
        "show_name": SHOWS[show],
        "ts": ts,
        "vid_name": clip_name(show, season),
        "answer_idx": CHOICES.index(colour),
    }


def write_questions(folder: Path, split: str, questions: list[dict[str, Any]]) -> None:
    path = folder / "tvqa_qa_release" / f"tvqa_{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in questions))


def write_clip(folder: Path, show: str, season: int, colour: str, seconds: int, frequency: int) -> None:
    name = clip_name(show, season)
    frames = folder / "tvqa_frames" / "frames_hq" / f"{show}_frames" / name
    frames.mkdir(parents=True)
    for number in range(1, 3 * seconds + 1):
        picture = np.full((36, 64, 3), COLOURS[colour], np.uint8)
        picture[:, number:] //= 2
        (frames / f"{number:05d}.jpg").write_bytes(encode_jpeg(picture, 95))
    audio = folder / "audios" / ("bbt_new" if show == "bbt" else show) / f"{show}_audios"
    audio.mkdir(parents=True, exist_ok=True)
    write_tone(audio / f"{name}.mp3", seconds, frequency)
    subtitles = folder / "tvqa_subtitles"
    subtitles.mkdir(exist_ok=True)
    (subtitles / f"{name}.srt").write_text(f"1\n00:00:03,000 --> 00:00:05,000\nIt is {colour}!\n")


def write_tone(path: Path, seconds: int, frequency: int, rate: int = 22050) -> None:
    import av

    wave = 0.5 * np.sin(2 * np.pi * frequency * np.arange(seconds * rate) / rate).astype(np.float32)
    with av.open(str(path), "w", format="mp3") as file:
        stream = file.add_stream("libmp3lame", rate=rate)
        stream.layout = "mono"
        for start in range(0, len(wave), rate):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + rate], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
