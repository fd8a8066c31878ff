from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

import reserve
from reserve.data.video import Video
from reserve.data.video_sound import TimeSpan
from reserve.errors import BadInput
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.zero_shot import reader as reader_module
from reserve.tasks.zero_shot.reader import Query, VideoReader
from tests.helpers.media_files import Sound, click_track, number_picture, write_media
from tests.helpers.tiny import tiny


class Letters:
    """A tokenizer of one token a letter, with <|MASK|>."""

    def encode(self, text):
        ids = []
        for number, part in enumerate(text.split("<|MASK|>")):
            ids += [3] * bool(number) + [10 + ord(letter) % 90 for letter in part]
        return ids


@pytest.fixture(scope="module")
def model() -> MerlotReserve:
    torch.manual_seed(0)
    return MerlotReserve(tiny(vocab_size=120, vit_patch_size=16)).eval()


def make_video(folder, *, sound=True) -> Video:
    def picture(index):
        image = number_picture(index)
        image[: 8 if index < 20 else 4] = 0  # the bars of late frames are narrower
        return image

    path = write_media(
        folder / "video.mp4",
        frame_times=[index / 4 for index in range(48)],
        picture=picture,
        sounds=[Sound(click_track(12, [1.0, 4.0, 6.5]))] if sound else [],
    )
    return reserve.open_video(path)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Video:
    return make_video(tmp_path_factory.mktemp("video"))


@pytest.fixture(scope="module")
def silent(tmp_path_factory) -> Video:
    return make_video(tmp_path_factory.mktemp("silent"), sound=False)


def spans(*starts, seconds=2):
    return tuple(TimeSpan(start, start + seconds, start + seconds / 2) for start in starts)


QUERIES = [
    Query(spans(0, 2, 4), (None, None, "it is <|MASK|>")),
    Query(spans(0, 2, 4), (None, "ab", "<|MASK|> it is <|MASK|>")),
    Query(spans(6, 8), (None, "<|MASK|>")),  # late frames, whose bars are narrower
    Query(spans(2, 4, 6), ("", None, "then <|MASK|>")),
    Query(spans(0), ("no mask",)),
]


def one_by_one(model, video, queries):
    """The vectors of each query through the public inputs."""
    found = []
    for query in queries:
        texts = {number: text for number, text in enumerate(query.texts) if text is not None}
        inputs = video.inputs(
            model.config.image_size, query.segments, texts=texts, tokenizer=Letters(), audio=video.has_sound
        )
        with torch.inference_mode():
            found.append(model.embed_video(*inputs)[0][torch.from_numpy(inputs.tokens[0] == 3)])
    return found


@pytest.mark.parametrize("at_once", [64, 3, 1])
def test_queries_together_give_what_each_gives_alone(model, video, monkeypatch, at_once):
    monkeypatch.setattr(reader_module, "FRAMES_AT_ONCE", at_once)
    found = VideoReader(model, Letters()).read(video, QUERIES)
    for vectors, alone in zip(found, one_by_one(model, video, QUERIES), strict=True):
        torch.testing.assert_close(vectors, alone, atol=2e-6, rtol=0)
    assert [len(vectors) for vectors in found] == [1, 2, 1, 1, 0]


@pytest.mark.parametrize("at_once", [64, 3, 1])
def test_frames_and_sounds_are_read_once(model, video, monkeypatch, at_once):
    seen = Counter()

    def counted(name, method):
        def call(self, things):
            things = list(things)
            seen.update((name, thing) for thing in things)
            return method(self, things)

        monkeypatch.setattr(Video, name, call)

    counted("frames", Video.frames)
    counted("clips", Video.clips)
    encoded = []
    for name in ("vision_encoder", "audio_encoder"):
        forward = getattr(model, name).forward
        monkeypatch.setattr(
            getattr(model, name), "forward", lambda x, f=forward, n=name: encoded.append((n, len(x))) or f(x)
        )
    monkeypatch.setattr(reader_module, "FRAMES_AT_ONCE", at_once)
    VideoReader(model, Letters()).read(video, QUERIES)
    assert set(seen.values()) == {1}
    assert {thing for name, thing in seen if name == "frames"} == {1, 3, 5, 7, 9}
    assert {thing.start for name, thing in seen if name == "clips"} == {0, 2, 4, 6}
    sums = Counter()
    for name, count in encoded:
        sums[name] += count
    # The frame at 1 s twice: among later frames, whose bars are narrower, less is trimmed of it than alone.
    assert sums == {"vision_encoder": 6, "audio_encoder": 3 * 4}


def test_a_video_without_sound_is_read_without_the_audio_encoder(model, silent, monkeypatch):
    monkeypatch.setattr(model.audio_encoder, "forward", None)
    found = VideoReader(model, Letters()).read(silent, QUERIES)
    for vectors, alone in zip(found, one_by_one(model, silent, QUERIES), strict=True):
        torch.testing.assert_close(vectors, alone, atol=2e-6, rtol=0)


def test_a_track_that_cannot_be_decoded_is_read_as_no_sound(model, video, silent, monkeypatch):
    def waveform(_):
        raise BadInput("no sound can be decoded from its audio track")

    expected = VideoReader(model, Letters()).read(silent, QUERIES)
    monkeypatch.setattr(Video, "waveform", property(waveform))
    for vectors, alone in zip(
        VideoReader(model, Letters()).read(reserve.open_video(video.path), QUERIES), expected, strict=True
    ):
        torch.testing.assert_close(vectors, alone, atol=2e-6, rtol=0)


def test_text_alone_never_decodes_the_sound(model, video, monkeypatch):
    monkeypatch.setattr(Video, "clips", None)
    (found,) = VideoReader(model, Letters()).read(video, [Query(spans(0, 2), ("a", "b <|MASK|>"))])
    assert found.shape == (1, 64)


def test_no_queries_have_no_answers(model, video):
    assert VideoReader(model, Letters()).read(video, []) == []


def test_queries_are_checked():
    with pytest.raises(ValueError, match="2 segments has 1 texts"):
        Query(spans(0, 1), (None,))
    with pytest.raises(ValueError, match="1 to 8 segments; got 9"):
        Query(spans(*range(9)), (None,) * 9)


def test_memory_is_bounded_by_what_later_batches_need(model, video, monkeypatch):
    """Frames that no later view shows are dropped."""
    monkeypatch.setattr(reader_module, "FRAMES_AT_ONCE", 1)
    kept = []
    drop = reader_module._Kept.drop_after
    monkeypatch.setattr(
        reader_module._Kept, "drop_after", lambda self, batch: drop(self, batch) or kept.append(len(self.values))
    )
    VideoReader(model, Letters()).read(video, [Query(spans(start), ("<|MASK|>",)) for start in range(6)])
    assert set(kept) == {0}
    assert np.array(kept).size == 18


@pytest.mark.parametrize(("budget", "frames"), [(3.5, 3), (1000, 64), (0.5, 0)])
def test_fewer_frames_are_decoded_at_once_where_they_are_large(video, monkeypatch, budget, frames):
    track = video.info.video
    monkeypatch.setattr(reader_module, "PIXELS_AT_ONCE", int(budget * track.width * track.height))
    assert reader_module._frames_at_once(video) == frames
