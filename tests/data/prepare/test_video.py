"""One video with its companions to segments, end to end on small real files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from reserve.data.decode.protocol import MediaLimits
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.images import decode_jpeg
from reserve.data.prepare import video
from reserve.data.prepare.video import PreparationSettings
from reserve.data.sources.discover import discover_sources
from reserve.data.types import Choice
from reserve.errors import BadInput
from tests.helpers.media_files import ExpiresAfter, Sound, click_track, number_picture, read_number, write_media

SECONDS = 14
TIMES = [index / 8 for index in range(8 * SECONDS)]
CLICKS = [0.75 + i for i in range(SECONDS - 1)]
WORDS = [{"word": f"word{i}", "start": i * 0.5, "end": i * 0.5 + 0.5} for i in range(2 * SECONDS)]


def prepare_video(source, settings):
    return video.prepare_video(source, settings, PyAVDecoder())


def make(folder, *, name="a.mp4", words=WORDS, sounds=None, **options):
    sounds = [Sound(click_track(SECONDS, CLICKS))] if sounds is None else sounds
    write_media(folder / name, frame_times=TIMES, sounds=sounds, **options)
    if words is not None:
        (folder / "a.json").write_text(json.dumps(words))
    (source,) = discover_sources([folder])
    return source


def test_frames_sound_and_words_come_from_the_same_time(tmp_path):
    (tmp_path / "a.info.json").write_text('{"title": "T", "tags": ["x"]}')
    source = make(tmp_path)
    prepared = prepare_video(source, PreparationSettings())
    segments = prepared.segments
    assert segments.start.tolist() == [0.0, 5.0]
    assert segments.playback_speed.tolist() == [1, 1]
    # The frame at the middle of each segment: number 8 * 2.5 and 8 * 7.5.
    assert [read_number(decode_jpeg(jpeg)) for jpeg in segments.frames] == [20, 60]
    assert [[word.text for word in words] for words in segments.words] == [
        [f"word{i}" for i in range(10)],
        [f"word{i}" for i in range(10, 20)],
    ]
    assert [(word.start, word.end) for word in segments.words[1][:2]] == [(0.0, 0.5), (0.5, 1.0)]
    # The clicks of both segments, at 0.75 + i seconds, in mel frames of 588 / 22050 seconds.
    for mel in segments.log_mel.astype(np.float32):
        loudness = mel.mean(axis=1)
        peaks = [int(frames[loudness[frames].argmax()]) for frames in np.array_split(np.arange(1, 188), 5)]
        assert np.array(peaks) * 588 / 22050 == pytest.approx([0.75 + i for i in range(5)], abs=0.04)
    assert (segments.metadata.title, segments.metadata.tags) == ("T", ("x",))
    assert (prepared.choice, prepared.warnings) == (Choice("a.json", "audio track 0"), ())
    assert prepared.seconds == pytest.approx(SECONDS, abs=0.2)


def test_same_seed_same_segments(tmp_path):
    sparse = [{**word, "start": word["start"] + 3, "end": word["end"] + 3} for word in WORDS[:18:3]]
    source = make(tmp_path, words=sparse)
    one, again, other = (prepare_video(source, PreparationSettings(seed=seed)).segments for seed in (1, 1, 2))
    assert one.start.tolist() == again.start.tolist()
    assert one.frames == again.frames
    np.testing.assert_array_equal(one.log_mel, again.log_mel)
    assert one.start[0] != other.start[0]


def test_bad_transcripts_are_skipped_with_a_warning(tmp_path):
    make(tmp_path)
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.vtt").write_text("#!/bin/sh\n")
    lines = "".join(f"{i}\n00:00:{i:02},000 --> 00:00:{i + 1:02},000\none{i} two\n\n" for i in range(SECONDS - 1))
    (tmp_path / "a.srt").write_text(lines)
    (source,) = discover_sources([tmp_path])
    prepared = prepare_video(source, PreparationSettings())
    assert prepared.choice.transcript == "a.srt"
    assert [warning.split(":")[0] for warning in prepared.warnings] == ["a.json", "a.vtt"]


def test_embedded_captions(tmp_path):
    cues = [(i, i + 1, f"one{i} two") for i in range(SECONDS - 1)]
    prepared = prepare_video(make(tmp_path, words=None, cues=cues), PreparationSettings())
    assert prepared.choice.transcript == "text track 0"
    assert [len(words) for words in prepared.segments.words] == [10, 10]


def test_broken_metadata_is_a_warning(tmp_path):
    (tmp_path / "a.info.json").write_text("{")
    prepared = prepare_video(make(tmp_path), PreparationSettings())
    assert prepared.warnings[0].startswith("metadata ignored: a.info.json")


def test_still_picture_with_narration(tmp_path):
    source = make(tmp_path)
    write_media(
        source.path, frame_times=[0], sounds=[Sound(click_track(SECONDS, CLICKS))], picture=lambda _: number_picture(7)
    )
    segments = prepare_video(source, PreparationSettings()).segments
    assert [read_number(decode_jpeg(jpeg)) for jpeg in segments.frames] == [7, 7]


def test_second_track(tmp_path):
    source = make(tmp_path, sounds=[Sound(click_track(SECONDS, [])), Sound(click_track(SECONDS, CLICKS))])
    silent, heard = (
        prepare_video(source, PreparationSettings(audio_track=track)).segments.log_mel.max() for track in (0, 1)
    )
    assert silent < 0.1 < heard


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sounds": []}, "no audio track"),
        ({"words": None}, "no transcript beside it and no text track in it"),
        ({"words": []}, "no usable transcript .a.json: no words"),
        (
            {"words": [{**word, "start": word["start"] + 60, "end": word["end"] + 60} for word in WORDS]},
            "after the end",
        ),
        ({"words": [{"word": "late", "start": 12.0, "end": 12.5}]}, "too short: .* first word at 12.0 s"),
    ],
)
def test_reasons(tmp_path, options, reason):
    with pytest.raises(BadInput, match=reason):
        prepare_video(make(tmp_path, **options), PreparationSettings())


def test_duration_limit(tmp_path):
    settings = PreparationSettings(limits=MediaLimits(max_duration=8))
    assert len(prepare_video(make(tmp_path), settings).segments) == 1


@pytest.mark.parametrize(
    ("name", "codec", "video_codec"), [("a.mp4", "aac", "libx264"), ("a.webm", "libopus", "libvpx-vp9")]
)
def test_damaged_files_give_segments_or_a_reason(tmp_path, monkeypatch, name, codec, video_codec):
    """Cut anywhere, or with bytes flipped anywhere, a file gives segments or BadInput, and no endless loop."""
    # Decoding the whole file takes about 1500 checks.
    monkeypatch.setattr(video, "Deadline", lambda _: ExpiresAfter(100_000))
    sounds = [Sound(click_track(SECONDS, CLICKS, 48000), 48000, codec=codec)]
    source = make(tmp_path, name=name, sounds=sounds, video_codec=video_codec)
    content = source.path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = []
    for attempt in range(24):
        damaged = bytearray(content)
        if attempt % 2:
            damaged = damaged[: rng.integers(1, len(content))]
        else:
            # Half of the flips in the first and last kilobyte, where the headers are.
            places = [*rng.integers(0, 1000, 4), *-rng.integers(1, 1000, 4), *rng.integers(0, len(content), 8)]
            for place in places:
                damaged[place] = rng.integers(256)
        source.path.write_bytes(damaged)
        try:
            outcomes.append(len(prepare_video(source, PreparationSettings()).segments))
        except BadInput as error:
            outcomes.append(str(error))
    assert any(isinstance(outcome, str) for outcome in outcomes)
    assert "expired" not in outcomes
