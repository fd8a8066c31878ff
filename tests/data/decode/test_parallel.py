"""Frames and sound of one file in several threads: the same as in one."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from reserve.data.decode.parallel import ParallelReader
from reserve.data.decode.protocol import MediaLimits
from reserve.errors import BadInput, DecodingTimeout
from tests.helpers.decoder_cases import TIMES
from tests.helpers.media_files import read_number, write_media

MIDDLES = [0.25 + 0.5 * index for index in range(11)]


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_as_in_one_thread(file_decoder, video, threads):
    reader = ParallelReader(file_decoder, video, threads=threads)
    with file_decoder.open(video) as media:
        frames, track = list(media.frames(MIDDLES)), media.soundtrack(sample_rate=16000)
    found, sound = reader.frames_and_sound(MIDDLES, sample_rate=16000)
    np.testing.assert_array_equal(found, frames)
    np.testing.assert_array_equal(sound.waveform, track.waveform)
    assert sound.media_end == track.media_end
    np.testing.assert_array_equal(reader.frames(MIDDLES), frames)


def test_no_times(file_decoder, video):
    reader = ParallelReader(file_decoder, video)
    assert reader.frames([]) == []
    assert reader.frames_and_sound([])[0] == []


def test_all_threads_work(file_decoder, video):
    """Each part waits until another thread has opened the file."""
    meeting = threading.Barrier(2, timeout=60)

    class Meeting:
        def open(self, *arguments):
            meeting.wait()
            return file_decoder.open(*arguments)

    numbers = [read_number(frame) for frame in ParallelReader(Meeting(), video, threads=2).frames([0.05, 4.05])]
    assert numbers == [0, 40]


def test_a_bad_file_is_named_by_its_fault(file_decoder, tmp_path):
    path = write_media(tmp_path / "a.mp4", frame_times=TIMES[:5])
    reader = ParallelReader(file_decoder, path)
    assert len(reader.frames([0.1])) == 1
    with pytest.raises(BadInput, match="no audio track"):
        reader.frames_and_sound([0.1])


def test_one_deadline_for_all_threads(file_decoder, video):
    reader = ParallelReader(file_decoder, video, MediaLimits(max_decode_seconds=1e-9))
    with pytest.raises(DecodingTimeout):
        reader.frames_and_sound(MIDDLES)


def test_bad_arguments(file_decoder, video):
    with pytest.raises(ValueError, match="threads must be at least 1; got 0"):
        ParallelReader(file_decoder, video, threads=0)
    with pytest.raises(ValueError, match="must not decrease"):
        ParallelReader(file_decoder, video).frames([1, 0.5])
