"""The language of a video: from the label of its transcript, else from its words, else unknown."""

from __future__ import annotations

import pytest

from reserve.data.decode.protocol import TextTrack
from reserve.data.filters.language import (
    MIN_LETTERS,
    guess_language,
    other_language,
    transcript_language,
    wanted_codes,
)
from reserve.data.sources.tracks import track_name

TEXTS = {
    "en": "so today we are going to bake an apple pie and first you need to take the butter and the sugar and mix "
    "everything until it is nice and fluffy and then the eggs go in",
    "de": "heute zeige ich euch wie man einen Apfelkuchen backt und zuerst nehmen wir die Butter und den Zucker und "
    "rühren alles gut durch bis es schön schaumig ist dann kommen die Eier dazu",
    "fr": "aujourd'hui on va préparer une tarte aux pommes et pour commencer il faut éplucher les pommes et les couper "
    "en fines tranches puis on les dispose sur la pâte avec un peu de sucre",
    "ja": "みなさんこんにちは今日はりんごのケーキを作りますまずバターと砂糖をよく混ぜて卵を一つずつ加えます" * 4,
}


@pytest.mark.parametrize("language", TEXTS)
def test_words_tell_the_language(language):
    assert guess_language([TEXTS[language]]) == language


def test_short_texts_are_not_guessed():
    text = TEXTS["de"]
    short = text[: MIN_LETTERS - 5]
    assert guess_language([short]) == ""
    assert guess_language([]) == ""
    assert guess_language(["♪ 123 ♪ " * 100]) == ""


def test_an_unsure_guess_does_not_count():
    assert guess_language(["la la la oh baby yeah yeah oh oh oh na na na hey hey oh love me yeah baby " * 3]) == ""


@pytest.mark.parametrize(
    ("video", "transcript", "language"),
    [
        ("talk.mp4", "talk.de.vtt", "de"),
        ("a/b.c/talk.mp4", "talk.mp4.en-US.srt", "en"),
        ("/data/my.talk.de.mp4", "my.talk.de.vtt", ""),
        ("my.talk.mp4", "my.talk.French (SDH).srt", "fr"),
        ("talk.mp4", "talk.words.json", ""),
        ("talk.mp4", "talk.vtt", ""),
        ("TALK.mp4", "talk.ja.vtt", "ja"),
        ("clip.mp4", "other.de.vtt", ""),
        ("talk.mp4", "", ""),
        ("talk.mkv", track_name("text", 0, TextTrack(language="ger", title="Signs & Songs")), "de"),
        ("talk.mkv", track_name("text", 3, TextTrack(language="fre", title="")), "fr"),
        ("talk.mkv", track_name("text", 3, TextTrack(language="und", title="English, full")), "en"),
        ("talk.mkv", track_name("text", 1, TextTrack(language="und", title="")), ""),
    ],
)
def test_labels_of_transcripts(video, transcript, language):
    assert transcript_language(video, transcript) == language


def test_the_label_decides_before_the_words():
    english = [TEXTS["en"]]
    assert other_language("a.mp4", "a.en.vtt", [TEXTS["de"]], ["en"]) is None
    assert other_language("a.mp4", "a.de.vtt", english, ["en"]) == ("de", "by the label of a.de.vtt")
    assert other_language("a.mp4", "a.vtt", english, ["de", "French"]) == ("en", "by its words")
    assert other_language("a.mp4", "a.vtt", english, ["de", "English"]) is None
    assert other_language("a.mp4", "a.vtt", ["hello"], ["de"]) is None


def test_languages_by_code_name_and_region():
    assert wanted_codes(["deu", "French", "pt-BR"]) == {"de", "fr", "pt"}
    with pytest.raises(ValueError, match=r"filter\.languages must hold languages.*'klingonish'"):
        wanted_codes(["klingonish"])
