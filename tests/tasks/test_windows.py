from __future__ import annotations

from itertools import pairwise

import pytest

from reserve.data.video import open_video
from reserve.tasks.windows import even_windows, video_windows
from tests.tasks.zero_shot.small_sets import write_video


@pytest.mark.parametrize(
    ("segments", "lengths"), [(0, []), (1, [1]), (8, [8]), (9, [4, 5]), (17, [5, 6, 6]), (24, [8, 8, 8])]
)
def test_windows_are_few_and_of_even_length(segments, lengths):
    windows = even_windows(segments)
    assert [len(window) for window in windows] == lengths
    assert [number for window in windows for number in window] == list(range(segments))


def test_a_long_video_is_divided_and_a_stretch_is_what_was_asked_for(tmp_path):
    video = open_video(write_video(tmp_path / "video.mp4", 47.4))
    windows = video_windows(video)
    assert [len(window) for window in windows] == [5, 5]
    ends = [(span.start, span.end) for window in windows for span in window]
    assert ends[0] == (0, 5)
    assert ends[-1][0] == 45
    assert all(first[1] == second[0] for first, second in pairwise(ends))
    ((span,),) = video_windows(video, 12.0, 15.5)
    assert span == (12.0, 15.5, 13.75)
