"""Views of a clip, and their stored form."""

from __future__ import annotations

import pytest

from reserve.data.video import Video
from reserve.errors import BadInput
from reserve.tasks.kinetics600.annotations import find_clips
from reserve.tasks.kinetics600.stored import KineticsSettings, prepare_clip, read_view, view_spans
from tests.helpers.kinetics_folder import write_clip


@pytest.mark.parametrize(
    ("duration", "segments", "shift", "expected"),
    [
        (10.0, 2, 0.0, [(0, 5, 2.5), (5, 10, 7.5)]),
        (10.0, 2, 1.0, [(1, 6, 3.5), (6, 11, 8.5)]),
        (14.0, 2, -1.0, [(1, 6, 3.5), (6, 11, 8.5)]),
        # A short clip has short segments, and its frames stay within it.
        (4.0, 2, 0.0, [(0, 2, 1), (2, 4, 3)]),
        (1.0, 2, 1.0, [(1, 1.5, 1), (1.5, 2, 1)]),
        (1.0, 2, -1.0, [(-1, -0.5, 0), (-0.5, 0, 0)]),
        (10.0, 4, 0.0, [(0, 2.5, 1.25), (2.5, 5, 3.75), (5, 7.5, 6.25), (7.5, 10, 8.75)]),
    ],
)
def test_segments_of_a_view(duration, segments, shift, expected):
    assert [tuple(span) for span in view_spans(duration, segments, shift)] == expected


def test_shifts_are_even():
    assert KineticsSettings(views=1).shifts == [0.0]
    assert KineticsSettings(views=3, max_shift=1.0).shifts == [-1.0, 0.0, 1.0]


def test_damaged_sound_leaves_the_pictures(kinetics_folder, monkeypatch):
    def fail(*_):
        raise BadInput("no sound can be decoded")

    monkeypatch.setattr(Video, "waveform", property(fail))
    path = find_clips(kinetics_folder, "val")["val-_arch__000100_000110"]

    frames, sound = read_view(prepare_clip(path, KineticsSettings()), 1, 2)

    assert len(frames) == 2
    assert sound is None


def test_a_short_clip_is_read(tmp_path):
    path = write_clip(tmp_path / "short.mp4", (250, 250, 250), 500, seconds=1.5)

    frames, sound = read_view(prepare_clip(path, KineticsSettings()), 0, 2)

    assert len(frames) == 2
    assert sound.shape == (2, 3, 60, 65)


@pytest.mark.parametrize(
    "change",
    [
        {"segments": 0},
        {"segments": 9},
        {"views": 0},
        {"max_shift": -1.0},
        {"max_shift": float("nan")},
        {"random_scale_min": 0.0},
        {"random_scale_max": 0.9},
    ],
)
def test_bad_settings_are_named(change):
    with pytest.raises(ValueError, match=f"examples.{next(iter(change))}"):
        KineticsSettings(**change)
