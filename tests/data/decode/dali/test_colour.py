"""The matrix that mends DALI's colours."""

from __future__ import annotations

import numpy as np
import pytest

from reserve.data.decode.dali.colour import is_known, mending_matrix


@pytest.mark.parametrize("colorspace", [2, 5, 6])
def test_nothing_to_mend(colorspace):
    assert is_known(colorspace)
    assert mending_matrix(colorspace) is None


@pytest.mark.parametrize("colorspace", [0, 3, 8, 10, 99])
def test_unknown(colorspace):
    assert not is_known(colorspace)


@pytest.mark.parametrize("colorspace", [1, 4, 7, 9])
def test_grey_stays_grey(colorspace):
    grey = np.full(3, 120.0)
    np.testing.assert_allclose(mending_matrix(colorspace) @ grey, grey, rtol=1e-5)


def test_bt709():
    """A red of BT.709, taken for BT.601."""
    luma, blue, red = 0.2126, -0.2126 / 1.8556, 0.5
    wrong = [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue]
    np.testing.assert_allclose(mending_matrix(1) @ np.array(wrong), [1, 0, 0], atol=1e-5)
