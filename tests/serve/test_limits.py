from __future__ import annotations

import pytest

from reserve.serve.limits import Limits


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"upload_bytes": 0}, "upload_bytes must be at least 1; got 0"),
        ({"waiting": -1}, "waiting must be at least 1"),
        ({"upload_bytes": 10, "folder_bytes": 9}, "folder_bytes must be at least upload_bytes, 10"),
    ],
)
def test_limits_that_let_nothing_through_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        Limits(**changed)
