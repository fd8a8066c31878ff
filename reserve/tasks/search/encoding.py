"""Vectors of the moments of a window: of the words that the model expects there, and of the sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from reserve.batch.video_tokens import MAX_SEGMENTS, NO_SUBSEGMENT, SUBSEGMENTS, VideoTokens
from reserve.batch.vocabulary import AUDIOSPAN, MASK, PAD
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.zero_shot.encoding import JointQuestion, encode_frames, encode_heard, encode_masks


@dataclass(frozen=True)
class Window:
    """Up to 8 consecutive segments: `images` float32 [segments, height, width, 3] in [0, 1], `clips` float32
    [segments, 3, 60, 65], None without sound."""

    images: np.ndarray
    clips: np.ndarray | None


@dataclass(frozen=True)
class WindowVectors:
    """Unit vectors of a window's subsegments: `words` and `sounds` float32 [segments, 3, hidden], `sounds` None without
    sound."""

    words: np.ndarray
    sounds: np.ndarray | None


def encode_windows(model: MerlotReserve, windows: Sequence[Window]) -> list[WindowVectors]:
    """The vectors of each window.

    `words`: the joint encoder runs three times, each time with a MASK in place of another subsegment of every segment,
    whose sound is left out, as in pretraining's audio2text; the vectors are unit(head(output at the MASK)). `sounds`
    are those of `embed_audio`. Both can be compared with the span encoder's: pretraining matches outputs at MASKs with
    spans of text and of sound alike, so all three share a space.
    """
    frames = encode_frames(model, np.concatenate([window.images for window in windows]))
    heard = [window.clips for window in windows if window.clips is not None]
    pooled, sounds = encode_heard(model, np.concatenate(heard)) if heard else (None, None)
    questions: list[JointQuestion] = []
    first_frame = first_sound = 0
    for window in windows:
        count, audible = len(window.images), window.clips is not None
        of_frames = first_frame + np.arange(count)
        of_sounds = first_sound + np.arange(count) if audible else np.full(count, -1)
        for masked in range(SUBSEGMENTS):
            tokens = masked_tokens(count, masked, heard=audible, audio_tokens=model.config.audio_token_length)
            questions.append(JointQuestion(tokens, of_frames, of_sounds))
        first_frame += count
        first_sound += count * audible
    masks = encode_masks(model, frames, pooled, questions)
    found: list[WindowVectors] = []
    first_sound = 0
    for number, window in enumerate(windows):
        words = torch.stack(masks[SUBSEGMENTS * number : SUBSEGMENTS * (number + 1)], dim=1).cpu().numpy()
        own = None
        if sounds is not None and window.clips is not None:
            own = sounds[first_sound : first_sound + len(window.clips)].cpu().numpy()
            first_sound += len(window.clips)
        found.append(WindowVectors(words, own))
    return found


def masked_tokens(segments: int, masked: int, *, heard: bool, audio_tokens: int = 6) -> VideoTokens:
    """The tokens of a window with a MASK in place of subsegment `masked` (0 to 2) of each segment.

    The other subsegments are `audio_tokens` AUDIOSPAN each if they are `heard`, else nothing.
    """
    length = MAX_SEGMENTS * (1 + (SUBSEGMENTS - 1) * audio_tokens)
    ids = np.full(length, PAD, np.int32)
    subsegments = np.full(length, NO_SUBSEGMENT, np.int32)
    place = 0
    for number in range(SUBSEGMENTS * segments):
        is_masked = number % SUBSEGMENTS == masked
        stop = place + (1 if is_masked else audio_tokens * heard)
        ids[place:stop] = MASK if is_masked else AUDIOSPAN
        subsegments[place:stop] = number
        place = stop
    return VideoTokens(ids, subsegments)
