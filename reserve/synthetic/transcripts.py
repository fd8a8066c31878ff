"""The sidecar files of a synthetic video in yt-dlp's formats: word-timed WebVTT and `.info.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from reserve.data.types import Word
from reserve.synthetic.narration import describe
from reserve.synthetic.story import Scene


def timestamp(seconds: float) -> str:
    """A WebVTT timestamp, such as 00:01:02.345."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"


def webvtt(cues: Sequence[Sequence[Word]]) -> str:
    """Captions like YouTube's automatic ones: in a cue, every word but the first has its own start time.

    A word ends where the next one begins; the last word of a cue ends with the cue.
    """
    blocks = ["WEBVTT\nKind: captions\nLanguage: en"]
    for words in cues:
        timing = f"{timestamp(words[0].start)} --> {timestamp(words[-1].end)} align:start position:0%"
        text = words[0].text + "".join(f"<{timestamp(word.start)}><c> {word.text}</c>" for word in words[1:])
        blocks.append(f"{timing}\n{text}")
    return "\n\n".join(blocks) + "\n"


def info_json(video_id: str, scenes: Sequence[Scene], starts: Sequence[float], duration: float) -> str:
    """Metadata as yt-dlp writes it. The chapters are the scenes; `starts` are their start times in seconds.

    The field `scenes`, which yt-dlp lacks, says what each chapter shows; the synthetic task data sets are built on it.
    """
    names = [describe(scene) for scene in scenes]
    things = dict.fromkeys(f"{scene.colour} {scene.shape}" for scene in scenes)
    ends = [*starts[1:], duration]
    info = {
        "id": video_id,
        "title": f"A journey from the {scenes[0].place} to the {scenes[-1].place}",
        "description": f"We meet {', '.join(names[:3])} and many more. Listen, watch and learn the shapes and colours.",
        "tags": [*things][:6],
        "chapters": [
            {"start_time": round(start, 3), "end_time": round(end, 3), "title": name}
            for start, end, name in zip(starts, ends, names, strict=True)
        ],
        "scenes": [asdict(scene) for scene in scenes],
        "duration": round(duration, 3),
        "language": "en",
        "ext": "mp4",
        "extractor": "reserve demo-data",
    }
    return json.dumps(info, indent=1) + "\n"
