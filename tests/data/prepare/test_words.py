"""The choice between the transcripts of a video."""

from __future__ import annotations

import pytest

from reserve.data.decode.protocol import AudioTrack, MediaInfo, TextTrack, VideoTrack
from reserve.data.prepare.words import find_words
from reserve.data.sources.discover import discover_sources
from reserve.data.types import Cue
from reserve.errors import BadInput

SECONDS = 60.0


class Tracks:
    """A file with text tracks: pairs of a header and the words it shows, one every half a second."""

    def __init__(self, *tracks, closed_captions=False, spoken=""):
        audio = AudioTrack(language=spoken)
        self.info = MediaInfo(VideoTrack(), (audio,), tuple(header for header, _ in tracks))
        self._words = [words for _, words in tracks]
        self._closed_captions = closed_captions

    def cues(self, track):
        self.info.check_text(track)
        return [Cue(index / 2, index / 2 + 0.5, (word,)) for index, word in enumerate(self._words[track])]

    def has_closed_captions(self):
        return self._closed_captions


def srt(words):
    return "".join(
        f"{index}\n00:00:{index // 2:02},{index % 2 * 5}00 --> 00:00:{index // 2:02},{index % 2 * 5 + 4}00\n{word}\n\n"
        for index, word in enumerate(words)
    )


def named(word, count=40):
    return [f"{word}{index}" for index in range(count)]


@pytest.fixture
def beside(tmp_path):
    """The source of a video with these files beside it: name to words."""

    def make(**files):
        (tmp_path / "a.mp4").write_bytes(b"x")
        for name, words in files.items():
            (tmp_path / f"a{name.replace('_', '.')}").write_text(srt(words))
        (source,) = discover_sources([tmp_path])
        return source

    return make


def find(source, media, languages=("en",)):
    words, choice, warnings = find_words(source, media, 0, SECONDS, languages)
    return words[0].text, choice.transcript, {other.name: other.reason for other in choice.passed_over}, warnings


def test_first_usable_transcript_and_why_not_the_others(beside):
    source = beside(_en_srt=[], _srt=named("file"), _de_srt=named("wort"), _part_srt=named("other"))
    (source.path.parent / "a.en.srt").write_text("no srt")
    media = Tracks((TextTrack(language="ger", title="Signs"), named("schild")))
    word, used, passed_over, (warning,) = find(source, media)
    assert (word, used) == ("file0", "a.srt")
    assert warning.startswith("a.en.srt: not SRT")
    assert passed_over == {
        "a.en.srt": warning.removeprefix("a.en.srt: "),
        "a.de.srt": "not tried: language de",
        "text track 0 (ger, Signs)": "not tried: language de, forced or other partial text",
        "a.part.srt": "'part' in its name is no language and no label",
    }


def test_wanted_language_of_embedded_tracks(beside):
    media = Tracks((TextTrack(language="ger"), named("wort")), (TextTrack(language="eng"), named("word")))
    assert find(beside(), media)[:3] == (
        "word0",
        "text track 1 (eng)",
        {"text track 0 (ger)": "not tried: language de"},
    )
    assert find(beside(), media, languages=["de"])[1] == "text track 0 (ger)"


@pytest.mark.parametrize("worse", ["_de_srt", "_en_forced_srt", "_en_auto_srt"])
def test_better_track_before_a_file(beside, worse):
    media = Tracks((TextTrack(language="eng"), named("word")))
    assert find(beside(**{worse: named("wort")}), media)[:2] == ("word0", "text track 0 (eng)")
    assert find(beside(_en_sdh_srt=named("file")), media)[:2] == ("file0", "a.en.sdh.srt")


def test_full_track_before_the_forced_one(beside):
    signs = TextTrack(language="eng", is_forced=True, is_default=True)
    media = Tracks((signs, ["CITY", "HALL"]), (TextTrack(language="eng"), named("word")))
    assert find(beside(), media)[1] == "text track 1 (eng)"


def test_forced_text_without_a_label_gives_way_to_the_full(beside):
    few, full = (TextTrack(language="eng"), ["CITY", "HALL"]), (TextTrack(language="eng"), named("word"))
    german = (TextTrack(language="ger"), named("wort"))
    word, used, passed_over, (warning,) = find(beside(), Tracks(few, german, full))
    assert (word, used) == ("word0", "text track 2 (eng)")
    assert warning == "text track 0 (eng): 2 words in 60 s, where text track 2 (eng) has 40"
    assert passed_over == {
        "text track 0 (eng)": "2 words in 60 s, where text track 2 (eng) has 40",
        "text track 1 (ger)": "not tried: language de",
    }


def test_video_in_which_little_is_said(beside):
    german = (TextTrack(language="ger"), named("wort"))
    few, more = (TextTrack(language="eng"), named("word", 12)), (TextTrack(language="eng"), named("more", 14))
    assert find(beside(), Tracks(few, german))[1] == "text track 0 (eng)"
    word, _, passed_over, warnings = find(beside(), Tracks(few, more))
    assert (word, warnings) == ("word0", [])
    assert passed_over == {"text track 1 (eng)": "14 words in 60 s, where text track 0 (eng) has 12"}


def test_forced_text_alone_is_refused(beside):
    media = Tracks((TextTrack(language="eng", is_forced=True), ["CITY", "HALL"]))
    with pytest.raises(BadInput, match=r"text track 0 \(eng\): forced or other partial text: 2 words in 60 s"):
        find(beside(), media)


def test_forced_text_alone_that_is_all_that_is_said_was_labelled_wrongly(beside):
    media = Tracks((TextTrack(language="eng", is_forced=True), named("word")))
    assert find(beside(), media)[0] == "word0"


def test_pictures_of_text_are_passed_over(beside):
    media = Tracks((TextTrack(language="eng", is_pictures=True), []), (TextTrack(language="ger"), named("wort")))
    assert find(beside(), media)[1] == "text track 1 (ger)"


def test_closed_captions_are_named(beside):
    with pytest.raises(BadInput, match=r"no text track in it; its pictures carry closed captions \(CEA-608 or 708\)"):
        find(beside(), Tracks(closed_captions=True))


def test_words_in_another_language_than_the_sound_are_a_warning(beside):
    media = Tracks((TextTrack(language="eng"), named("word")), spoken="jpn")
    assert find(beside(), media)[3] == ["text track 0 (eng) is in language en, the sound in ja"]
    assert find(beside(), Tracks((TextTrack(language="eng"), named("word")), spoken="eng"))[3] == []


def test_words_in_a_language_that_nobody_wants_are_a_warning(beside):
    warning = "a.de.srt is in language de, which is not in data.languages"
    assert find(beside(_de_srt=named("wort")), Tracks())[3] == [warning]
    assert find(beside(_de_srt=named("wort")), Tracks(), languages=["en", "deu"])[3] == []


def test_words_after_the_end_are_a_warning(beside):
    """A cut-off download."""
    words = [*named("word", 110), *named("late", 90)]
    media = Tracks((TextTrack(language="eng"), [*words]))
    warning = "text track 0 (eng): 80 of its 200 words come after the end of the video at 60.0 s, and are left out"
    assert find(beside(), media)[3] == [warning]


def test_damage_to_the_transcript_that_is_used_is_a_warning(beside):
    source = beside(_srt=named("word"))
    path = source.path.parent / "a.srt"
    path.write_bytes(path.read_bytes().replace(b"word3", b"w\xe9rd3"))
    word, used, _, (warning,) = find(source, Tracks())
    assert (word, used) == ("word0", "a.srt")
    assert warning.startswith("a.srt: ")
