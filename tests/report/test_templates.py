"""Templates of pages."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from reserve.report.templates import clock, render


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00.0"), (59.97, "1:00.0"), (61.25, "1:01.2"), (3600, "60:00.0")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_a_value_that_is_not_given_is_an_error():
    with pytest.raises(UndefinedError):
        render("shards.html.jinja", {"short": str})
