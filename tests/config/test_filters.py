"""Settings of the filters: what is refused names the setting."""

from __future__ import annotations

import pytest

from reserve.config import FilterConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_static_share": -0.1}, r"filter\.max_static_share must be .*; got -0\.1"),
        ({"max_static_share": 1.1}, r"filter\.max_static_share must be .*; got 1\.1"),
        ({"min_words_per_minute": -1.0}, r"filter\.min_words_per_minute must be .*; got -1\.0"),
        ({"languages": ("en", " ")}, r"filter\.languages must hold codes or names of languages; got \['en', ' '\]"),
    ],
)
def test_a_bad_value_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        FilterConfig(**values)
