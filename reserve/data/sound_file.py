"""The sound of a file, with or without pictures, at inference."""

from __future__ import annotations

import os

import numpy as np

from reserve.data.decode import MediaLimits, choose_file_decoder
from reserve.data.sources.tracks import choose_audio_track
from reserve.data.video_sound import SAMPLE_RATE, normalized
from reserve.errors import BadInput


def read_sound(path: str | os.PathLike[str], *, limits: MediaLimits | None = None) -> np.ndarray:
    """A file's whole audio track divided by its peak: mono, 22050 Hz, float32 [samples].

    Raises BadInput naming the file if it has no sound that can be decoded.
    """
    try:
        with choose_file_decoder().open(os.fspath(path), limits or MediaLimits()) as media:
            if not media.info.audio:
                raise BadInput("it has no sound")
            track = choose_audio_track(media.info.audio, ("en",))
            media.info.check_audio(track)
            return normalized(media.soundtrack(track=track, sample_rate=SAMPLE_RATE).waveform)
    except BadInput as error:
        raise type(error)(f"{path}: {error}") from error
