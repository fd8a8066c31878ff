from __future__ import annotations

import numpy as np
import pytest

from reserve.config import DataConfig
from reserve.tasks.pretrain.masking.subsegments import (
    draw_subsegment_starts,
    inference_subsegment_starts,
    subsegment_windows,
)


def test_inference_starts_are_the_released_ones() -> None:
    starts = inference_subsegment_starts(DataConfig(num_segments=2, num_segment_groups=1, text_span_budget=50))
    np.testing.assert_array_equal(starts, [[2, 64, 126], [2, 64, 126]])


def test_inference_starts_follow_the_config() -> None:
    data = DataConfig(num_segments=1, num_segment_groups=1, num_audio_subsegments=4, spec_size=100, text_span_budget=50)
    np.testing.assert_array_equal(inference_subsegment_starts(data, 20), [[4, 28, 52, 76]])


def test_drawn_subsegments_are_disjoint_and_inside_the_segment() -> None:
    data = DataConfig()
    rng = np.random.default_rng(0)
    for _ in range(200):
        starts = draw_subsegment_starts(rng, data)
        assert starts.shape == (16, 3)
        assert starts.min() >= 0
        assert starts.max() + 60 <= data.spec_size
        assert np.diff(starts, axis=1).min() >= 60


def test_drawn_gaps_share_the_spare_frames_equally() -> None:
    # The i-th sum of A + 1 = 4 exchangeable shares averages i/4 of the 8 spare frames; truncation takes about half a
    # frame, a little less where the sum is often below one.
    rng = np.random.default_rng(0)
    gaps = np.stack([draw_subsegment_starts(rng, DataConfig()) for _ in range(500)]).reshape(-1, 3) - [0, 60, 120]
    np.testing.assert_allclose(gaps.mean(0), [1.5, 3.5, 5.5], atol=0.05)


def test_no_spare_frames_leave_no_choice() -> None:
    starts = draw_subsegment_starts(np.random.default_rng(0), DataConfig(spec_size=180))
    np.testing.assert_array_equal(starts, np.tile([0, 60, 120], (16, 1)))


def test_subsegments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data.spec_size .* got 179 for 3 \* 60"):
        draw_subsegment_starts(np.random.default_rng(0), DataConfig(spec_size=179))


def test_windows_reach_half_an_analysis_window_beyond_the_frames() -> None:
    start, end = subsegment_windows(np.array([[2, 64, 126]]), DataConfig())
    half = 1536 / 22050 / 2
    np.testing.assert_allclose(start, [[frame * 588 / 22050 - half for frame in (2, 64, 126)]], atol=1e-6)
    np.testing.assert_allclose(end, [[(frame + 60) * 588 / 22050 + half for frame in (2, 64, 126)]], atol=1e-6)
