"""Files whose clock restarts, jumps or overflows: pictures, sound and captions stay together, as in players."""

from __future__ import annotations

from fractions import Fraction

import pytest

from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.decode.pyav.clock import ContinuousClock
from tests.helpers.media_files import Sound, click_track, find_clicks, number_picture, read_number, write_media

OVERFLOW = 2**33 / 90_000
"""Seconds after which the clock of an MPEG stream starts again."""
PART_SECONDS = 6
CLICKS = [1.0, 3.0, 5.0]
# Containers delay the sound by the encoder's priming, and a part ends with its last packet.
TOLERANCE = 0.12


def part(folder, *, first_number=0, starts=0.0, ending="ts", rate=10, **options):
    """Six seconds with ten numbers a second, from `first_number` on, and clicks; the clock begins at `starts`."""
    path = write_media(
        folder / f"part{first_number}.{ending}",
        frame_times=[starts + index / rate for index in range(PART_SECONDS * rate)],
        picture=lambda index: number_picture(first_number + index * 10 // rate),
        sounds=[Sound(click_track(PART_SECONDS, CLICKS), start=starts, codec="mp2")],
        **options,
    )
    return path.read_bytes()


def seen(path, times):
    with PyAVDecoder().open(path) as media:
        return [read_number(frame) for frame in media.frames(times)]


def heard(path):
    with PyAVDecoder().open(path) as media:
        track = media.soundtrack()
    return find_clicks(track.waveform, track.sample_rate), track.media_end


def check_joined(path, parts):
    """`parts` parts of 60 pictures one after another, each with its clicks."""
    times = [PART_SECONDS * number + inside for number in range(parts) for inside in (0.55, 2.55, 5.05)]
    numbers = seen(path, times)
    assert numbers == pytest.approx([10 * time - 0.5 for time in times], abs=1.01)
    clicks, end = heard(path)
    expected = [PART_SECONDS * number + click for number in range(parts) for click in CLICKS]
    assert clicks == pytest.approx(expected, abs=TOLERANCE * parts)
    assert end == pytest.approx(PART_SECONDS * parts, abs=TOLERANCE * parts)
    # Sound and picture of each part stay together whatever the joint did.
    with PyAVDecoder().open(path) as media:
        for click in clicks:
            span = media.sound(click - 0.2, click + 0.2)
            assert find_clicks(span, 22050) == pytest.approx([0.2], abs=0.003)


MPEG2 = {"video_codec": "mpeg2video", "rate": 25, "tick": Fraction(1, 25)}


@pytest.mark.parametrize(("ending", "options"), [("ts", {}), ("m2ts", {}), ("mpg", MPEG2)])
def test_clock_restarts(tmp_path, ending, options):
    path = tmp_path / f"joined.{ending}"
    path.write_bytes(b"".join(part(tmp_path, first_number=60 * n, ending=ending, **options) for n in range(3)))
    check_joined(path, 3)


@pytest.mark.parametrize("starts", [(0, 1000), (1000, 0), (50, 3), (0, 5), (40_000, 90_000), (90_000, 0, 40_000)])
def test_clock_jumps(tmp_path, starts):
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part(tmp_path, first_number=60 * n, starts=start) for n, start in enumerate(starts)))
    check_joined(path, len(starts))


@pytest.mark.parametrize("before", [0.5, 3, 59, 61, 100])
def test_clock_overflows(tmp_path, before):
    path = tmp_path / "a.ts"
    path.write_bytes(part(tmp_path, starts=OVERFLOW - before))
    check_joined(path, 1)


def test_clock_overflows_and_restarts(tmp_path):
    path = tmp_path / "a.ts"
    path.write_bytes(part(tmp_path, starts=OVERFLOW - 3) + part(tmp_path, first_number=60, starts=OVERFLOW - 4))
    check_joined(path, 2)


def test_captions_cross_the_break_with_the_pictures(tmp_path):
    """A sparse stream takes the shift of the others, also for a cue of the old clock behind the break."""
    clock = ContinuousClock()
    for step in range(100):
        clock.shift(0, 50 + step * 0.1, 0.1)
    assert clock.shift(0, 0.0, 0.1) == pytest.approx(60)
    assert clock.shift(7, 1.0, 2.0, is_sparse=True) == pytest.approx(60)
    assert clock.shift(7, 59.0, 2.0, is_sparse=True) == 0


def shifts(times, *, stream=0, clock=None):
    clock = clock or ContinuousClock()
    return [clock.shift(stream, time, 0.1) for time in times]


@pytest.mark.parametrize("damaged", [1e5, 5.0, -5.0, -40.0])
def test_one_damaged_timestamp_shifts_nothing_else(damaged):
    times = [40 + step * 0.1 for step in range(200)]
    times[100] += damaged
    moved = shifts(times)
    assert moved[:100] == [0] * 100
    assert moved[101:] == [0] * 99


def test_pictures_that_stand_still_are_no_break():
    """One picture a minute while the sound goes on."""
    clock = ContinuousClock()
    for second in range(600):
        assert clock.shift(1, second, 1.0) == 0
        if second % 60 == 0:
            assert clock.shift(0, second, 0.1) == 0


def test_sound_that_ended_early_does_not_pull_the_next_part_forward():
    clock = ContinuousClock()
    shifts([step * 0.1 for step in range(100)], clock=clock)
    shifts([step * 0.1 for step in range(60)], clock=clock, stream=1)
    assert shifts([0.0], clock=clock, stream=1) == shifts([0.0], clock=clock) == pytest.approx([10])


def test_pictures_that_are_decoded_long_before_they_are_shown_have_not_ended_early():
    """One picture a second with B-frames."""
    clock = ContinuousClock()
    shifts([step * 0.1 for step in range(100)], clock=clock, stream=1)
    for second in range(10):
        assert clock.shift(0, second - 2, 1.0, delay=2.0) == 0
    assert clock.shift(0, -2, 1.0, delay=2.0) == 10
    assert shifts([0.0], clock=clock, stream=1) == pytest.approx([10])
