"""The segments, pictures and subtitles of a question, against the reference's numbers and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reserve.tasks.tvqa.annotations import parse_span
from reserve.tasks.tvqa.times import choose_excerpt, clamped_span, cue_segments, frame_number


@pytest.fixture(scope="module")
def golden(shared_dir):
    with np.load(shared_dir / "golden" / "tvqa_prep.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("case", range(16))
def test_excerpts_are_the_references(golden, case):
    last = int(golden["max_frame_no"][case])
    span = parse_span(str(golden["ts"][case]), "a test")

    excerpt = choose_excerpt(span, range(1, last + 1))

    np.testing.assert_array_equal(excerpt.times, golden[f"{case}/times"])
    np.testing.assert_array_equal(excerpt.frames, golden[f"{case}/frames"])
    np.testing.assert_array_equal(excerpt.localization, golden[f"{case}/localization"])
    np.testing.assert_array_equal(clamped_span(span, last), golden[f"{case}/clamped_ts"])
    assert excerpt.localization_text == "{} to {}".format(*golden[f"{case}/localization_int"])
    np.testing.assert_array_equal(cue_segments(excerpt.times, golden[f"{case}/cues"]), golden[f"{case}/cue_segment"])


def test_a_segment_without_its_picture_is_dropped(golden):
    last, missing = int(golden["missing/max_frame_no"]), int(golden["missing/frame"])
    numbers = set(range(1, last + 1)) - {missing}

    excerpt = choose_excerpt(parse_span(str(golden["missing/ts"]), "a test"), numbers)

    np.testing.assert_array_equal(excerpt.times, golden["missing/times"])
    np.testing.assert_array_equal(excerpt.frames, golden["missing/frames"])
    np.testing.assert_array_equal(excerpt.localization, golden["missing/localization"])


def test_a_dropped_last_segment_still_counts_in_the_localization():
    whole = choose_excerpt((0.0, 3.0), range(1, 201))

    cut = choose_excerpt((0.0, 3.0), set(range(1, 201)) - {int(whole.frames[-1])})

    assert len(cut) == len(whole) - 1
    assert cut.localization == whole.localization


def test_an_excerpt_of_absent_pictures_is_empty():
    # The middle of the only segment of a clip of one picture is clamped to that picture; another one is far away.
    assert len(choose_excerpt((0.0, 0.0), {1})) == 1
    assert len(choose_excerpt((0.0, 0.0), {1000})) == 0


def test_subtitles_on_the_bounds(golden):
    bounds, middles = golden["bounds/bounds"], golden["bounds/midpoints"]
    times = np.stack((bounds[:-1], bounds[1:]), axis=1)

    segments = cue_segments(times, [(middle, middle) for middle in middles])

    np.testing.assert_array_equal(segments, golden["bounds/segment"])


def test_no_subtitles_have_no_segments():
    assert cue_segments(np.array([[0.0, 4.0]]), []).shape == (0,)


def test_pictures_are_clamped_to_those_of_the_clip():
    assert frame_number(-4.0, 0.0, 100) == 1
    assert frame_number(90.0, 94.0, 100) == 100
    # round(2.5) is 2: halves go to the even number.
    assert frame_number(0.0, 5 / 3, 100) == 3
