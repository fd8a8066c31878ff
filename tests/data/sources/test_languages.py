"""Languages by name, and the subtags of their codes."""

from __future__ import annotations

import pytest

from reserve.data.sources.languages import is_other_region, tag_of_name, with_subtag


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("English", "en"),
        ("Englisch", "en"),
        ("anglais", "en"),
        ("Francais", "fr"),
        ("Espa\u00f1ol", "es"),
        ("Portugu\u00eas (Brasil)", "pt-BR"),
        ("Portuguese_(Brazil)", "pt-BR"),
        ("British English", "en-GB"),
        ("Chinese (Simplified)", "zh-Hans"),
        ("\u65e5\u672c\u8a9e", "ja"),
        ("Cantonese", "yue"),
        ("Farsi", "fa"),
        # The library for languages takes these for Latin, English, Brao and a language of Ivory Coast.
        ("Latin America", None),
        ("English SDH", None),
        ("mono", None),
        ("music", None),
        ("ido", None),  # too short
    ],
)
def test_names(name, tag):
    assert tag_of_name(name) == tag


@pytest.mark.parametrize(
    ("tag", "subtag", "longer"),
    [
        ("en", "US", "en-US"),
        ("en", "us", "en-US"),
        ("en", "UK", "en-GB"),
        ("en", "vi", None),  # Vietnamese, not the Virgin Islands
        ("en", "ja", None),
        ("en", "JA", None),
        ("zh", "hant", "zh-Hant"),
        ("zh-Hant", "HK", "zh-Hant-HK"),
        ("es", "419", "es-419"),
        ("en", "orig", None),
    ],
)
def test_subtags(tag, subtag, longer):
    assert with_subtag(tag.partition("-")[0], tag, subtag) == longer


def test_region_that_nobody_asked_for_does_not_matter():
    assert not is_other_region("en-GB", "en")
    assert not is_other_region("zh-Hant", "zh")
