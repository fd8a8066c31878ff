"""JSON as recognisers, aligners and services write it."""

from __future__ import annotations

import json

import pytest

from reserve.data.sources.transcripts.json_format import parse_json
from reserve.errors import BadInput

SPOKEN = [("We", 0.5, 0.7), ("counted", 0.8, 1.2), ("to", 1.3, 1.5), ("2014", None, None), ("then", 20.4, 20.7)]


def triples(words):
    return [(word.text, pytest.approx(word.start, abs=1e-6), pytest.approx(word.end, abs=1e-6)) for word in words]


def read(value):
    return triples(parse_json([json.loads(json.dumps(value))]))


def segment(spoken, convert=lambda time: time, keep_none=False):
    words = [{"word": word, "start": convert(start), "end": convert(end)} for word, start, end in spoken]
    if not keep_none:
        words = [{key: value for key, value in word.items() if value is not None} for word in words]
    return {"segments": [{"start": 0.5, "end": 22.4, "text": " ".join(word for word, _, _ in spoken), "words": words}]}


@pytest.mark.parametrize(
    "value",
    [
        segment(SPOKEN),
        segment(SPOKEN, keep_none=True),
        segment(SPOKEN, lambda time: None if time is None else str(time)),
        {**segment(SPOKEN), "word_segments": [{"word": word} for word, _, _ in SPOKEN]},
    ],
    ids=["missing", "null", "strings", "word_segments"],
)
def test_only_the_word_without_times_is_placed_between_its_neighbours(value):
    assert read(value) == [*SPOKEN[:3], ("2014", 1.5, 20.4), SPOKEN[4]]


def test_words_without_times_at_the_ends_of_a_segment_stay_inside_it():
    spoken = [("so", None, None), *SPOKEN[:2], ("ab", None, None), ("cdef", None, None)]
    assert read(segment(spoken)) == [
        ("so", 0.5, 0.5),
        *SPOKEN[:2],
        ("ab", 1.2, pytest.approx(1.2 + 21.2 / 3)),
        ("cdef", pytest.approx(1.2 + 21.2 / 3), 22.4),
    ]


def test_words_with_a_start_or_an_end_only():
    words = [{"word": "a", "start": 1.0}, {"word": "b", "start": 1.5}, {"word": "c", "start": 9.5, "end": 10}]
    assert read(words) == [("a", 1.0, 1.5), ("b", 1.5, 2.5), ("c", 9.5, 10)]
    words = [{"word": "a", "end": 1.0}, {"word": "b", "end": 1.5}, {"word": "c", "end": 9.5}]
    assert read(words) == [("a", 0, 1), ("b", 1, 1.5), ("c", 8.5, 9.5)]


def test_segment_whose_words_have_no_times_shares_out_its_time():
    value = {"segments": [{"start": 0, "end": 4, "text": "hello there", "words": [{"word": "hello"}]}]}
    assert read(value) == [("hello", 0, 2), ("there", 2, 4)]


def google(start="startTime", end="endTime", times=("0.500s", "0.900s", "1s", "1.500s")):
    words = [{start: times[0], end: times[1], "word": "Hi"}, {start: times[2], end: times[3], "word": "there"}]
    return [{"alternatives": [{"transcript": "Hi there", "confidence": 0.9, "words": words}]}]


def seconds(*times):
    return [{"seconds": str(int(time)), "nanos": round(time % 1 * 1e9)} for time in times]


ALTERNATIVES = [{"content": "Hi", "confidence": 1.0, "speaker": "S1"}], [{"content": "there"}]
SHAPES = {
    "aws": {
        "results": {
            "transcripts": [{"transcript": "Hi there"}],
            "items": [
                {"start_time": "0.5", "end_time": "0.9", "alternatives": ALTERNATIVES[0], "type": "pronunciation"},
                {"start_time": "1.0", "end_time": "1.5", "alternatives": ALTERNATIVES[1], "type": "pronunciation"},
            ],
            "audio_segments": [{"transcript": "Hi there", "start_time": "0.5", "end_time": "1.5"}],
        }
    },
    "google": {"results": google()},
    "google operation": {"name": "1", "done": True, "response": {"results": google()}},
    "google dictionary": {"results": google("start_time", "end_time", seconds(0.5, 0.9, 1, 1.5))},
    "google v2": {"results": google("startOffset", "endOffset")},
    "google speakers": {"results": google() + google()},
    "deepgram": {
        "metadata": {"duration": 3.0},
        "results": {
            "channels": [
                {
                    "alternatives": [
                        {
                            "transcript": "hi there",
                            "words": [
                                {"word": "hi", "start": 0.5, "end": 0.9, "punctuated_word": "Hi"},
                                {"word": "there", "start": 1.0, "end": 1.5, "punctuated_word": "there"},
                            ],
                            "paragraphs": {"paragraphs": [{"sentences": [{"text": "Hi", "start": 0.5, "end": 1}]}]},
                        }
                    ]
                }
            ],
            "utterances": [{"start": 0.5, "end": 1.5, "transcript": "hi there"}],
        },
    },
    "assemblyai": {
        "status": "completed",
        "audio_duration": 3,
        "words": [
            {"text": "Hi", "start": 500, "end": 900, "confidence": 0.9, "speaker": "A"},
            {"text": "there", "start": 1000, "end": 1500},
        ],
    },
    "azure": {
        "recognizedPhrases": [
            {
                "offset": "PT0.5S",
                "duration": "PT1S",
                "offsetInTicks": 5e6,
                "nBest": [
                    {
                        "lexical": "hi there",
                        "display": "Hi there.",
                        "words": [
                            {"word": "Hi", "offset": "PT0.5S", "duration": "PT0.4S"},
                            {"word": "there", "offsetInTicks": 1e7, "durationInTicks": 5e6},
                        ],
                    }
                ],
            }
        ]
    },
    "azure live": [
        {
            "Offset": 5_000_000,
            "Duration": 10_000_000,
            "NBest": [
                {
                    "Lexical": "hi there",
                    "Words": [
                        {"Word": "Hi", "Offset": 5_000_000, "Duration": 4_000_000},
                        {"Word": "there", "Offset": 10_000_000, "Duration": 5_000_000},
                    ],
                }
            ],
        }
    ],
    "azure fast": {
        "phrases": [
            {
                "offsetMilliseconds": 500,
                "durationMilliseconds": 1000,
                "text": "Hi there",
                "words": [
                    {"text": "Hi", "offsetMilliseconds": 500, "durationMilliseconds": 400},
                    {"text": "there", "offsetMilliseconds": 1000, "durationMilliseconds": 500},
                ],
            }
        ]
    },
    "rev": {
        "monologues": [
            {
                "speaker": 0,
                "elements": [
                    {"type": "text", "value": "Hi", "ts": 0.5, "end_ts": 0.9},
                    {"type": "punct", "value": " "},
                    {"type": "text", "value": "there", "ts": 1.0, "end_ts": 1.5},
                ],
            }
        ]
    },
    "gentle": {
        "transcript": "Hi there",
        "words": [
            {"case": "success", "word": "Hi", "start": 0.5, "end": 0.9, "startOffset": 0, "endOffset": 2, "phones": []},
            {"case": "success", "word": "there", "start": 1.0, "end": 1.5, "startOffset": 3, "endOffset": 8},
        ],
    },
    "mfa": {
        "start": 0,
        "end": 2.0,
        "tiers": {
            "phones": {"type": "interval", "entries": [[0.5, 0.7, "HH"], [0.7, 0.9, "AY1"]]},
            "words": {"type": "interval", "entries": [[0, 0.5, ""], [0.5, 0.9, "Hi"], [1.0, 1.5, "there"]]},
        },
    },
    "speechmatics": {
        "results": [
            {"type": "word", "start_time": 0.5, "end_time": 0.9, "alternatives": ALTERNATIVES[0]},
            {"type": "word", "start_time": 1.0, "end_time": 1.5, "alternatives": ALTERNATIVES[1]},
        ]
    },
    "watson": {
        "results": [{"alternatives": [{"transcript": "Hi ", "timestamps": [["Hi", 0.5, 0.9], ["there", 1.0, 1.5]]}]}]
    },
    "elevenlabs": {
        "words": [
            {"text": "Hi", "start": 0.5, "end": 0.9, "type": "word"},
            {"text": " ", "start": 0.9, "end": 1.0, "type": "spacing"},
            {"text": "there", "start": 1.0, "end": 1.5, "type": "word"},
            {"text": "(laughs)", "start": 2, "end": 3, "type": "audio_event"},
        ]
    },
    "transformers": {
        "text": " Hi there",
        "chunks": [{"text": " Hi", "timestamp": [0.5, 0.9]}, {"text": " there", "timestamp": [1.0, 1.5]}],
    },
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_with_word_times(name):
    assert read(SHAPES[name]) == [("Hi", 0.5, 0.9), ("there", 1.0, 1.5)]


PARTS = {
    "whisper.cpp": {
        "transcription": [
            {"timestamps": {"from": "00:00:00,000"}, "offsets": {"from": 0, "to": 2000}, "text": " ab cd"},
            {"offsets": {"from": 2000, "to": 4000}, "text": " ef gh"},
        ]
    },
    "aeneas": {
        "fragments": [
            {"begin": "0.000", "end": "2.000", "lines": ["ab cd"], "children": []},
            {"begin": "2.000", "end": "4.000", "lines": ["ef gh"]},
        ]
    },
    "podcast": {
        "segments": [
            {"speaker": "Ann", "startTime": 0, "endTime": 2, "body": "ab cd"},
            {"startTime": 2, "endTime": 4, "body": "ef gh"},
        ]
    },
    "youtube-transcript-api": [
        {"text": "ab cd", "start": 0.0, "duration": 4.0},
        {"text": "ef gh", "start": 2.0, "duration": 2.0},
    ],
    "transformers": {
        "chunks": [{"text": "ab cd", "timestamp": [0.0, 2.0]}, {"text": "ef gh", "timestamp": [2.0, 4.0]}]
    },
    "milliseconds": [{"start": 0, "end": 2000, "text": "ab cd"}, {"start": 2000, "end": 4000, "text": "ef gh"}],
    "labels": [{"start": 0, "end": 2, "text": "[ANN]: ab cd"}, {"start": 2, "end": 4, "text": "BOB: ef gh"}],
}


@pytest.mark.parametrize("name", PARTS)
def test_shapes_with_times_of_segments(name):
    assert read(PARTS[name]) == [("ab", 0, 1), ("cd", 1, 2), ("ef", 2, 3), ("gh", 3, 4)]


def test_the_last_end_may_be_unknown():
    value = {"chunks": [{"text": "ab cd", "timestamp": [0.0, 2.0]}, {"text": "ef", "timestamp": [2.0, None]}]}
    assert read(value)[-1] == ("ef", 2, 2.16)


def test_punctuation_and_word_pieces_join_their_words():
    items = [
        {"type": "word", "text": "Hi", "start": 0.5, "end": 0.9},
        {"type": "punctuation", "text": ","},
        {"type": "word", "text": "you", "start": 1, "end": 1.5},
    ]
    assert read(items) == [("Hi,", 0.5, 0.9), ("you", 1, 1.5)]
    pieces = [(" Say", 0, 1), (" twenty", 1, 1.5), ("-five", 1.5, 2), (" now", 2, 3)]
    assert read(segment(pieces)) == [("Say", 0, 1), ("twenty-five", 1, 2), ("now", 2, 3)]


def test_times_that_cannot_be_seconds_are_refused():
    with pytest.raises(BadInput, match="its words take 40 s each: its times are not in seconds"):
        read([{"start": 0, "end": 80, "text": "ab cd"}, {"start": 80, "end": 160, "text": "ef gh"}])
    with pytest.raises(BadInput, match="not in seconds"):
        read([{"word": "ab", "start": 0.5, "end": 400.5}, {"word": "cd", "start": 400.5, "end": 800.5}])


@pytest.mark.parametrize(
    "value",
    [{"chapters": [{"start_time": 0, "end_time": 9, "title": "one"}]}, {"segments": [{"text": "no times"}]}, [[]], 3],
)
def test_json_without_timed_text(value):
    with pytest.raises(BadInput, match="no words with start and end times"):
        read(value)
