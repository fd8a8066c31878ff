"""Every decoder in turn, and a video for them. A new row of DECODERS is covered by itself."""

from __future__ import annotations

import pytest

from reserve.data.decode import DECODERS
from reserve.data.decode.protocol import BatchDecoder, FileDecoder
from tests.helpers.batch_decoder import PyAVInBatches
from tests.helpers.decoder_cases import SOUND, TIMES
from tests.helpers.media_files import write_media

ALL = (*DECODERS, PyAVInBatches())


@pytest.fixture(params=ALL, ids=lambda decoder: decoder.name)
def decoder(request):
    return available(request.param)


@pytest.fixture(params=[d for d in ALL if isinstance(d, FileDecoder)], ids=lambda decoder: decoder.name)
def file_decoder(request):
    return available(request.param)


@pytest.fixture(params=[d for d in ALL if isinstance(d, BatchDecoder)], ids=lambda decoder: decoder.name)
def batch_decoder(request):
    return available(request.param)


def available(decoder):
    if (reason := decoder.unavailable()) is not None:
        pytest.skip(f"{decoder.name}: {reason}")
    return decoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def video(folder):
    """Six seconds of picture and sound with captions."""
    cues = [(1, 2, "one two"), (2.5, 3, "three")]
    return write_media(folder / "video.mp4", frame_times=TIMES, sounds=[SOUND], cues=cues)
