"""What names of transcripts say."""

from __future__ import annotations

import pytest

from reserve.data.sources.labels import Labels, check_languages, language_rank, parse_labels, title_labels


def parse(middle):
    return parse_labels(middle.split("."))


@pytest.mark.parametrize(
    ("middle", "tag"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("eng", "en"),
        ("Eng", "en"),
        ("English", "en"),
        ("ENGLISH", "en"),
        ("ger", "de"),
        ("deu", "de"),
        ("Deutsch", "de"),
        ("fre", "fr"),
        ("français", "fr"),
        ("chi", "zh"),
        ("cmn", "zh"),
        ("日本語", "ja"),
        ("iw", "he"),
        ("pt-BR", "pt-BR"),
        ("pt_br", "pt-BR"),
        ("en-us", "en-US"),
        ("zh-Hans", "zh-Hans"),
        ("zh-cn", "zh-CN"),
        ("es-419", "es-419"),
        ("es-la", "es-LA"),
        ("Brazilian Portuguese", "pt-BR"),
        ("hi", "hi"),
        # The ids of YouTube's tracks, which yt-dlp puts behind the language.
        ("en--Xk3yLmN0pQ", "en"),
        ("en-a1b2c3d4e5_", "en"),
        ("en-_-_-_-_-_-_", "en"),
        ("en-US-eEY6OEpapPo", "en-US"),
        ("en-fr_abcdefgh", "en"),
        ("en-en", "en"),
        ("en.2", "en"),
        ("und", ""),
    ],
)
def test_languages(middle, tag):
    assert parse(middle) == Labels(language=tag.split("-")[0], tag=tag)


@pytest.mark.parametrize(
    ("middle", "kinds"),
    [
        ("forced", {"is_partial"}),
        ("FORCED", {"is_partial"}),
        ("en.forced", {"is_partial"}),
        ("forced.en", {"is_partial"}),
        ("en-forced", {"is_partial"}),
        ("Signs & Songs", {"is_partial"}),
        ("en.commentary", {"is_partial"}),
        ("sdh", {"is_hearing_impaired"}),
        ("en.SDH", {"is_hearing_impaired"}),
        ("en.cc", {"is_hearing_impaired"}),
        ("en.hi", {"is_hearing_impaired"}),
        ("English (SDH)", {"is_hearing_impaired"}),
        ("en[cc]", {"is_hearing_impaired"}),
        ("en.auto", {"is_automatic"}),
        ("en.auto-generated", {"is_automatic"}),
        ("asr", {"is_automatic"}),
        ("whisper", {"is_automatic"}),
        ("en-orig", {"is_automatic", "is_original"}),
        ("en-de", {"is_automatic"}),  # translated from German
        ("de-en", {"is_automatic"}),
        ("en.sdh.forced", {"is_partial", "is_hearing_impaired"}),
        ("words", set()),
        ("en.full", set()),
        ("captions", set()),
    ],
)
def test_kinds(middle, kinds):
    labels = parse(middle)
    names = ("is_partial", "is_automatic", "is_hearing_impaired", "is_original")
    assert {name for name in names if getattr(labels, name)} == kinds


@pytest.mark.parametrize(
    "middle", ["part2", "live_chat", "comments", "v2", "1080p", "2", "en.part2", "final", "a", "xx", "x264"]
)
def test_anything_else_is_no_label(middle):
    assert parse(middle) is None


def test_titles_of_tracks():
    assert title_labels("English (SDH)").is_hearing_impaired
    assert title_labels("Signs & Songs").is_partial
    assert title_labels("Enforced law and forcedness") == Labels()


def test_wanted_languages():
    wanted = ["pt-BR", "eng"]
    ranks = [language_rank(parse(middle), wanted) for middle in ("pt-BR", "pt-PT", "pt", "en", "en-GB", "de", "words")]
    assert ranks == [(0, False), (0, True), (0, True), (1, False), (1, False), (2, False), (0, False)]


@pytest.mark.parametrize("text", ["", "forced", "klingonish", "words", "e"])
def test_what_is_no_language_cannot_be_wanted(text):
    with pytest.raises(ValueError, match=r"data\.languages must hold languages"):
        check_languages(["en", text])
