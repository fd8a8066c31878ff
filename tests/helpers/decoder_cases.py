"""The video that tests of decoders share, and how to ask any kind of decoder for frames."""

from __future__ import annotations

import pytest

from reserve.data.decode.protocol import FileDecoder, FrameRequest, MediaLimits
from reserve.data.decode.pyav import PyAVDecoder
from reserve.errors import BadInput
from tests.helpers.media_files import Sound, click_track

RATE = 22050
CLICKS = [0.5, 2.0, 5.5]
TIMES = [index / 10 for index in range(60)]
SOUND = Sound(click_track(6, CLICKS))


def frames(decoder, path, times, limits=None):
    """The frames of a file at `times` from a decoder of files or of batches."""
    limits = limits or MediaLimits()
    if isinstance(decoder, FileDecoder):
        with decoder.open(path, limits) as media:
            return list(media.frames(times))
    skip_unsuited(decoder, path)
    (found,) = map(list, decoder.frames_of([FrameRequest(path, tuple(times), limits)]))
    return found


def skip_unsuited(decoder, path):
    """Skips the test if a decoder is not for the codec of the file on this machine; files that are no video are asked
    of every decoder."""
    try:
        with PyAVDecoder().open(path) as media:
            reason = decoder.unsuited(media.info)
    except BadInput:
        return
    if reason is not None:
        pytest.skip(f"{decoder.name}: {reason}")
