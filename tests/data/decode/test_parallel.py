"""Frames and sound of one file in several threads: the same as in one."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from reserve.data.decode import parallel
from reserve.data.decode.parallel import ParallelReader
from reserve.data.decode.protocol import MediaLimits
from reserve.data.decode.pyav import PyAVDecoder
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
    """Each waits until the other has opened the file."""
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


def test_a_thread_opens_the_file_once(file_decoder, video):
    opened = []

    class Counting:
        def open(self, *arguments):
            opened.append(arguments)
            return file_decoder.open(*arguments)

    assert len(ParallelReader(Counting(), video, threads=1).frames_and_sound(MIDDLES)[0]) == 11
    assert len(opened) == 1
    assert len(ParallelReader(Counting(), video, threads=2).frames_and_sound(MIDDLES)[0]) == 11
    assert len(opened) == 3


@pytest.mark.parametrize("fails_first", [True, False])
def test_the_first_error_ends_the_other_threads(fails_first):
    """They would decode until the deadline, 600 s."""

    class Endless:
        def __init__(self, deadline):
            self.deadline = deadline

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def frames(self, times):
            return self.fail() if fails_first else self.go_on()

        def soundtrack(self, **_):
            return self.go_on() if fails_first else self.fail()

        def fail(self):
            raise BadInput("its fault")

        def go_on(self):
            while True:
                self.deadline.check()
                time.sleep(0.001)

    class Decoder:
        def open(self, path, limits, deadline):
            return Endless(deadline)

    with pytest.raises(BadInput, match="its fault"):
        ParallelReader(Decoder(), "a.mp4", threads=2).frames_and_sound([1.0])


def test_an_interrupt_ends_the_threads(file_decoder, video, monkeypatch):
    """Python waits for them before it ends: with 600 s to decode, Ctrl-C would seem to do nothing."""
    began = []

    class Endless(PyAVDecoder):
        def open(self, path, limits, deadline):
            began.append(threading.current_thread())
            while True:
                deadline.check()
                time.sleep(0.001)

    class Interrupted(ThreadPoolExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            super().shutdown(wait=False)
            raise KeyboardInterrupt

    monkeypatch.setattr(parallel, "ThreadPoolExecutor", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        ParallelReader(Endless(), video, threads=2).frames(MIDDLES)
    for thread in began:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_an_error_keeps_no_frames(file_decoder, video):
    """Its traceback would hold on to them until the garbage is collected."""
    alive = []

    class Frames:
        def __init__(self):
            self.taken = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def frames(self, times):
            self.taken += 1
            if self.taken > 2:
                raise BadInput("its fault")
            for _ in times:
                frame = np.zeros(4)
                alive.append(weakref.ref(frame))
                yield frame

    class Decoder:
        def open(self, *_):
            return Frames()

    gc.disable()
    try:
        with pytest.raises(BadInput):
            ParallelReader(Decoder(), "a.mp4", threads=1)._results(
                [partial(parallel._frames, times=[0.0]) for _ in range(3)]
            )
        assert len(alive) == 2
        assert all(frame() is None for frame in alive)
    finally:
        gc.enable()


def test_one_deadline_for_all_threads(file_decoder, video):
    reader = ParallelReader(file_decoder, video, MediaLimits(max_decode_seconds=1e-9))
    with pytest.raises(DecodingTimeout):
        reader.frames_and_sound(MIDDLES)


def test_bad_arguments(file_decoder, video):
    with pytest.raises(ValueError, match="threads must be at least 1; got 0"):
        ParallelReader(file_decoder, video, threads=0)
    with pytest.raises(ValueError, match="must not decrease"):
        ParallelReader(file_decoder, video).frames([1, 0.5])
