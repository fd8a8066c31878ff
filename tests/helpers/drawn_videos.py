"""Segments of demo videos, and of copies of them: drawn scenes, narrated by the demo's templates, without sound."""

from __future__ import annotations

from functools import cache

import numpy as np

from reserve.config import DataConfig
from reserve.data.images import encode_jpeg, resize
from reserve.data.prepare.segments import cut_windows, video_rng, window_words
from reserve.data.types import Segments, Word
from reserve.synthetic.drawing import scene_frames
from reserve.synthetic.narration import narrate
from reserve.synthetic.story import plan_story, story_rng

SECONDS_A_WORD = 0.38
SCENES = 13


@cache
def _story(index: int) -> tuple[list[np.ndarray], list[Word]]:
    """A frame for each second of a story, and its words."""
    rng = story_rng(0, "train", index, "words")
    frames: list[np.ndarray] = []
    words: list[Word] = []
    now = 0.0
    for scene in plan_story(0, "train", index, SCENES):
        for text in " ".join(narrate(scene, rng)).split():
            words.append(Word(text, now + 0.1, now + SECONDS_A_WORD))
            now += SECONDS_A_WORD
        frames += scene_frames(scene, int(now) + 1 - len(frames), 1)
    return frames, words


def drawn_video(
    index: int,
    name: str,
    *,
    pictures_of: int | None = None,
    cut: float = 0.0,
    size: tuple[int, int] | None = None,
    crop: float = 0.0,
    quality: int = 75,
) -> Segments:
    """The segments that preparation cuts from story `index` under the id `name`.

    Args:
        pictures_of: show another story's pictures.
        cut: seconds that are missing at the start.
        size: height and width of the frames.
        crop: share of the height missing at the top and of the width at both sides together.
        quality: of the JPEG files.
    """
    _, words = _story(index)
    frames, _ = _story(index if pictures_of is None else pictures_of)
    spoken = [Word(word.text, word.start - cut, word.end - cut) for word in words if word.start >= cut]
    windows = cut_windows(spoken, words[-1].end + 2 - cut, video_rng(0, name))
    jpegs = []
    for window in windows:
        image = frames[min(int((window.start + window.end) / 2 + cut), len(frames) - 1)]
        height, width = image.shape[:2]
        image = image[round(height * crop) :, round(width * crop / 2) : round(width * (1 - crop / 2))]
        jpegs.append(encode_jpeg(resize(np.ascontiguousarray(image), *(size or image.shape[:2])), quality))
    data = DataConfig()
    return Segments(
        video_id=name,
        start=np.array([window.start for window in windows]),
        playback_speed=np.array([window.playback_speed for window in windows], np.int32),
        frames=jpegs,
        log_mel=np.zeros((len(windows), data.spec_size, data.num_mels), np.float16),
        words=[window_words(spoken, window) for window in windows],
    )
