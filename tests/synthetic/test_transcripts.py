import json

import pytest

from reserve.data.types import Word
from reserve.synthetic.story import Scene
from reserve.synthetic.transcripts import info_json, timestamp, webvtt


@pytest.mark.parametrize(
    ("seconds", "written"), [(0, "00:00:00.000"), (61.0004, "00:01:01.000"), (3599.9996, "01:00:00.000")]
)
def test_timestamps(seconds, written):
    assert timestamp(seconds) == written


def test_captions_time_every_word():
    text = webvtt(
        [[Word("hello", 1.0, 1.25), Word("there", 1.25, 1.5), Word("world", 1.5, 2.0)], [Word("bye", 2.5, 3)]]
    )
    assert text == (
        "WEBVTT\nKind: captions\nLanguage: en\n\n"
        "00:00:01.000 --> 00:00:02.000 align:start position:0%\n"
        "hello<00:00:01.250><c> there</c><00:00:01.500><c> world</c>\n\n"
        "00:00:02.500 --> 00:00:03.000 align:start position:0%\n"
        "bye\n"
    )


def test_metadata_names_the_scenes():
    scenes = [Scene("red", "star", 1, "left", "beach"), Scene("blue", "ring", 2, "up", "sea")]
    info = json.loads(info_json("story-0001", scenes, [0.0, 6.5], 13.25))
    assert info["id"] == "story-0001"
    assert info["title"] == "A journey from the beach to the sea"
    assert "one red star at the beach, two blue rings at the sea" in info["description"]
    assert info["tags"] == ["red star", "blue ring"]
    assert [(c["start_time"], c["end_time"]) for c in info["chapters"]] == [(0.0, 6.5), (6.5, 13.25)]
    assert [Scene(**scene) for scene in info["scenes"]] == scenes
