"""What names of transcripts say."""

from __future__ import annotations

import pytest

from reserve.data.sources.labels import Labels, check_languages, language_rank, parse_labels, track_labels


def parse(middle):
    return parse_labels(middle.split("."))


def kinds_of(labels):
    names = ("is_partial", "is_automatic", "is_hearing_impaired", "is_original")
    return {name for name in names if getattr(labels, name)}


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
        ("en-forced-abcd", "en"),
        ("zh-Hans-de-abcdefgh", "zh-Hans"),
        ("es-419-US_abcdefgh", "es-419"),
        ("en-en", "en"),
        ("pt-PT", "pt-PT"),
        ("de-de", "de-DE"),
        ("en-ca", "en-CA"),
        ("zh-tw", "zh-TW"),
        ("Spanish (Latin America)", "es-419"),
        ("English_(UK)", "en-GB"),
        ("English & German", "en"),
        ("2_English", "en"),
        ("wav", ""),  # what whisper.cpp adds to the name of the sound
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
        ("en-ja", {"is_automatic"}),
        ("en-vi", {"is_automatic"}),
        ("en-fil", {"is_automatic"}),
        ("en-zh-Hans", {"is_automatic"}),
        ("zh-Hans-en", {"is_automatic"}),
        ("en-de-j7Rz_kQ1-9A", {"is_automatic"}),
        ("pt-BR-orig", {"is_automatic", "is_original"}),
        ("en.whisper-large-v3", {"is_automatic"}),
        ("subgen.medium.en", {"is_automatic"}),
        ("English-SDH", {"is_hearing_impaired"}),
        ("en.closed captions", {"is_hearing_impaired"}),
        ("English - Forced", {"is_partial"}),
        ("en.Forced Narrative", {"is_partial"}),
        ("en.sdh.forced", {"is_partial", "is_hearing_impaired"}),
        ("words", set()),
        ("en.full", set()),
        ("captions", set()),
    ],
)
def test_kinds(middle, kinds):
    assert kinds_of(parse(middle)) == kinds


@pytest.mark.parametrize(
    "middle", ["part2", "live_chat", "comments", "v2", "1080p", "2", "en.part2", "final", "a", "xx", "x264"]
)
def test_anything_else_is_no_label(middle):
    assert parse(middle) is None


@pytest.mark.parametrize(
    ("title", "kinds"),
    [
        ("English (SDH)", {"is_hearing_impaired"}),
        ("f\u00fcr H\u00f6rgesch\u00e4digte", {"is_hearing_impaired"}),
        ("Signs & Songs", {"is_partial"}),
        ("Fran\u00e7ais (Forc\u00e9s)", {"is_partial"}),
        ("Deutsch erzwungen", {"is_partial"}),
        ("Audiokommentar", {"is_partial"}),
        ("Espa\u00f1ol forzados", {"is_partial"}),
        ("Full with signs & songs", set()),
        ("Enforced law and forcedness", set()),
    ],
)
def test_kinds_of_tracks(title, kinds):
    assert kinds_of(track_labels("", title)) == kinds


@pytest.mark.parametrize(
    ("code", "title", "tag"),
    [
        ("ger", "", "de"),
        ("und", "", ""),
        ("", "Deutsch", "de"),
        ("und", "Full English subtitles", "en"),
        ("por", "Brazilian Portuguese", "pt-BR"),
        ("ger", "English", "de"),
        ("", "By John", ""),
    ],
)
def test_languages_of_tracks(code, title, tag):
    assert track_labels(code, title).tag == tag


def test_wanted_languages():
    wanted = ["pt-BR", "eng"]
    ranks = [language_rank(parse(middle), wanted) for middle in ("pt-BR", "pt-PT", "pt", "en", "en-GB", "de", "words")]
    assert ranks == [(0, False), (0, True), (0, False), (1, False), (1, False), (2, False), (0, False)]


@pytest.mark.parametrize(
    ("wanted", "same", "other"),
    [
        ("pt-PT", "pt-PT", "pt-BR"),
        ("pt-PT", "pt-PT", "pt"),
        ("es-ES", "es-ES", "es-419"),
        ("zh-Hant", "zh-TW", "zh-CN"),
        ("zh-Hans", "zh", "zh-HK"),
    ],
)
def test_wanted_region_or_script(wanted, same, other):
    assert [language_rank(parse(middle), [wanted]) for middle in (same, other)] == [(0, False), (0, True)]


@pytest.mark.parametrize("text", ["", "forced", "klingonish", "words", "e"])
def test_what_is_no_language_cannot_be_wanted(text):
    with pytest.raises(ValueError, match=r"data\.languages must hold languages"):
        check_languages(["en", text])
