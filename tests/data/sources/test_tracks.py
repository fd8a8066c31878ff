"""Which tracks of a container are taken."""

from __future__ import annotations

import pytest

from reserve.data.decode.protocol import AudioTrack, TextTrack
from reserve.data.sources.tracks import choose_audio_track, rank_text_tracks, track_name

PLAIN = TextTrack(language="eng")


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (TextTrack(language="ger"), PLAIN),
        (TextTrack(language="ger", is_default=True), PLAIN),
        (TextTrack(language="ger", is_default=True), TextTrack()),  # without a language
        (TextTrack(language="ger", is_default=True), TextTrack(language="und")),
        (TextTrack(language="eng", is_forced=True, is_default=True), PLAIN),
        (TextTrack(language="eng", is_forced=True), TextTrack(language="ger")),
        (TextTrack(language="eng", is_comment=True), PLAIN),
        (TextTrack(language="eng", title="Signs & Songs", is_default=True), PLAIN),
        (TextTrack(language="eng", title="Forced", is_default=True), PLAIN),
        (TextTrack(language="eng", title="Director's Commentary"), PLAIN),
        (PLAIN, TextTrack(language="eng", is_default=True)),
        (TextTrack(language="eng", title="English (SDH)"), PLAIN),
        (TextTrack(language="eng", is_hearing_impaired=True), PLAIN),
        (TextTrack(language="eng", title="auto-generated", is_default=True), PLAIN),
    ],
)
def test_order_of_tracks(worse, better):
    assert rank_text_tracks([worse, better], ["en"]) == [1, 0]
    assert rank_text_tracks([better, worse], ["en"]) == [0, 1]


def test_equal_tracks_keep_their_order():
    assert rank_text_tracks([PLAIN] * 3, ["en"]) == [0, 1, 2]


def test_wanted_languages_come_in_their_order():
    tracks = [TextTrack(language=code) for code in ("eng", "spa", "ger", "fre")]
    assert rank_text_tracks(tracks, ["de", "French", "eng"]) == [2, 3, 0, 1]


def test_names():
    track = TextTrack(language="ger", title=" Signs\n& Songs ")
    assert track_name("text", 2, track) == "text track 2 (ger, Signs & Songs)"
    assert track_name("audio", 0, AudioTrack(language="und")) == "audio track 0"


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (AudioTrack(language="jpn", is_default=True), AudioTrack(language="eng")),
        (AudioTrack(language="eng", is_comment=True, is_default=True), AudioTrack(language="eng")),
        (AudioTrack(language="eng", title="Director's Commentary"), AudioTrack(language="jpn")),
        (AudioTrack(language="eng", is_description=True), AudioTrack(language="eng")),
        (AudioTrack(language="eng"), AudioTrack(language="eng", is_default=True)),
        (AudioTrack(False, language="eng"), AudioTrack(language="jpn")),
    ],
)
def test_audio_track(worse, better):
    assert choose_audio_track([worse, better], ["en"]) == 1
    assert choose_audio_track([better, worse], ["en"]) == 0


def test_first_of_equal_audio_tracks():
    assert choose_audio_track([AudioTrack()] * 2, ["en"]) == 0
    assert choose_audio_track([], ["en"]) == 0
