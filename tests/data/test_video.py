from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import reserve
from reserve.batch.vocabulary import AUDIOSPAN, MASK, PAD
from reserve.data.decode import MediaLimits, choose_file_decoder
from reserve.data.decode.parallel import ParallelReader
from reserve.data.images import trim_black_bars
from reserve.data.video import Video
from reserve.data.video_sound import TimeSpan
from reserve.errors import BadInput, DecodingTimeout
from tests.helpers.media_files import Sound, click_track, number_picture, read_number, write_media
from tests.helpers.tiny import tiny

FRAMES_PER_SECOND = 4
SIZE = (32, 64)
SECONDS = 12.5
SPANS = [(5.0, 10.0, 7.5), (0.0, 5.0, 2.5)]


def write_video(folder: Path, *, seconds: float = SECONDS, sound: bool = True, bar: int = 0) -> Path:
    """Frame i shows the number i, between black bars of `bar` rows; a click at 3.0 s."""

    def picture(index: int) -> np.ndarray:
        image = number_picture(index)
        image[:bar] = image[len(image) - bar :] = 0
        return image

    return write_media(
        folder / f"video-{seconds}-{sound}-{bar}.mp4",
        frame_times=[index / FRAMES_PER_SECOND for index in range(round(seconds * FRAMES_PER_SECOND))],
        picture=picture,
        sounds=[Sound(click_track(seconds, [3.0] if seconds > 3 else []))] if sound else [],
    )


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Video:
    return reserve.open_video(write_video(tmp_path_factory.mktemp("video")))


@pytest.fixture(scope="module")
def silent(tmp_path_factory) -> Video:
    return reserve.open_video(write_video(tmp_path_factory.mktemp("silent"), sound=False))


@pytest.fixture(scope="module")
def model() -> reserve.MerlotReserve:
    torch.manual_seed(0)
    return reserve.MerlotReserve(tiny(vit_patch_size=16, vocab_size=2**15)).eval()


def test_three_lines_lead_from_a_file_to_vectors(tmp_path, model, video):
    model.save_pretrained(tmp_path / "model")
    path = video.path

    model = reserve.MerlotReserve.from_pretrained(tmp_path / "model")
    video = reserve.open_video(path)
    vectors = model.embed_video(*video.inputs(model.config.image_size))

    assert vectors.shape == (1, 160, 64)
    assert torch.allclose(vectors[0, : 3 * 18].norm(dim=-1), torch.ones(54), atol=1e-3)


def test_segments_cover_the_video(video):
    assert video.duration == pytest.approx(SECONDS, abs=0.1)
    spans = video.segments()
    assert [span.start for span in spans] == [0, 5, 10]
    assert spans[1] == TimeSpan(5, 10, 7.5)
    assert spans[-1].end == video.duration
    assert [span.start for span in video.segments(start=1, seconds=2, most=3)] == [1, 3, 5]
    assert [span.end for span in video.segments(stop=8)] == [5, 8]
    assert [span.end for span in video.segments(stop=5.9)] == [5]  # less than a second is left out
    assert video.segments(start=12) == (TimeSpan(12, video.duration, (12 + video.duration) / 2),)  # unless it is all


def test_segments_that_cannot_be_are_errors(video):
    with pytest.raises(BadInput, match=r"mp4: it ends at 12\.5 s; no segment can start at 13 s"):
        video.segments(start=13)
    with pytest.raises(ValueError, match="stop must be after start, 3; got 2"):
        video.segments(start=3, stop=2)
    with pytest.raises(ValueError, match="seconds must be finite and at least 1; got 0"):
        video.segments(seconds=0)
    with pytest.raises(ValueError, match="start must be finite and at least 0; got -1"):
        video.segments(start=-1)


def test_frames_come_in_the_order_asked_for_and_repeat(video):
    times = [3.1, 0.0, 3.1, 99.0, 7.25]
    assert [read_number(frame) for frame in video.frames(times)] == [12, 0, 12, 49, 29]


def test_bars_are_those_of_all_frames_of_a_call(tmp_path):
    barred = reserve.open_video(write_video(tmp_path, bar=8))
    images = barred.images([TimeSpan(0, 2, 1), TimeSpan(2, 4, 3)], SIZE)
    assert images.shape == (2, *SIZE, 3)
    assert images.dtype == np.float32
    # 48 x 64 without twice 8 rows is 32 x 64: it fills the image. The edge is soft after lossy coding.
    assert images[:, 2:-2].min() > 0.15


@pytest.mark.parametrize("name", ["letterbox", "wide_bars", "pillarbox", "dark"])
def test_bars_are_the_references(shared_dir, name):
    with np.load(shared_dir / "golden/zero_shot.npz") as golden:
        frames = golden[f"bars/{name}/frames"]
        y1, y2, x1, x2 = golden[f"bars/{name}/y1y2x1x2"]
    for found, frame in zip(trim_black_bars(frames, trim_black=True), frames, strict=True):
        assert np.array_equal(found, frame[y1:y2, x1:x2])


def test_inputs_hold_texts_and_sounds(video):
    texts = {1: [20, MASK], -1: (30, 31)}
    images, clips, tokens, subsegments = video.inputs(SIZE, texts=texts)
    assert images.shape == (1, 3, *SIZE, 3)
    assert clips is not None
    assert clips.shape == (1, 9, 60, 65)
    assert np.array_equal(clips[0, :3], video.clips(video.segments()[:1])[0])
    assert not clips[0, 3:].any()  # segments with text are not heard
    assert tokens[0, :22].tolist() == [AUDIOSPAN] * 18 + [20, MASK, 30, 31]
    assert subsegments[0, 18:22].tolist() == [3, 3, 6, 6]
    assert (tokens[0, 22:] == PAD).all()
    assert (subsegments[0, 22:] == -1).all()


def test_text_is_encoded_with_the_vocabulary_given(video):
    class Letters:
        def encode(self, text):
            return [ord(letter) for letter in text]

    tokens = video.inputs(SIZE, texts={0: "ab", 1: "", 2: [7]}, tokenizer=Letters()).tokens
    assert tokens[0, :4].tolist() == [97, 98, 7, PAD]
    packaged = video.inputs(SIZE, texts={0: "a dog <|MASK|>", 1: "", 2: ""}).tokens[0]
    assert packaged[packaged != PAD].tolist() == reserve.Tokenizer.load().encode("a dog <|MASK|>")
    with pytest.raises(ValueError, match="texts must be of segments -3 to 2; got 3"):
        video.inputs(SIZE, texts={3: "x"})


def test_a_video_of_less_than_a_second_is_one_segment(tmp_path, model):
    short = reserve.open_video(write_video(tmp_path, seconds=0.5))
    assert short.segments() == (TimeSpan(0, short.duration, short.duration / 2),)
    vectors = model.embed_video(*short.inputs(SIZE))
    assert torch.allclose(vectors[0, :18].norm(dim=-1), torch.ones(18), atol=1e-3)


def test_a_video_without_sound_or_text_has_frames_alone(silent, model):
    vectors = model.embed_video(*silent.inputs(SIZE))
    assert vectors.shape == (1, 160, 64)
    assert not vectors.any()


def test_a_track_without_sound_is_read_as_no_sound(tmp_path, caplog):
    times = [index / FRAMES_PER_SECOND for index in range(12)]
    empty = Sound(np.zeros(0, np.float32), codec="pcm_s16le")
    video = reserve.open_video(write_media(tmp_path / "empty.mkv", frame_times=times, sounds=[empty]))
    assert video.has_sound
    inputs = video.inputs(SIZE)
    assert inputs.audio_clips is None
    assert not inputs.tokens.any()
    assert "empty.mkv: no sound can be decoded from its audio track: it is read without sound" in caplog.text
    with pytest.raises(BadInput, match="no sound can be decoded"):
        video.inputs(SIZE, audio=True)


def test_sound_that_takes_too_long_to_decode_is_an_error(video):
    """Whether a video is heard must not depend on the speed of the machine."""
    slow = reserve.open_video(video.path)
    slow._reader = ParallelReader(choose_file_decoder(), video.path, MediaLimits(max_decode_seconds=-1))
    for read in (lambda: slow.can_be_heard, lambda: slow.inputs(SIZE, SPANS)):
        with pytest.raises(DecodingTimeout, match=r"mp4: decoding took more than -1 s"):
            read()


def test_inputs_decode_frames_and_sound_at_once(video, monkeypatch):
    """And give what either alone does."""
    apart = reserve.open_video(video.path)
    images, clips = apart.images(SPANS, SIZE), apart.clips(SPANS)
    together = reserve.open_video(video.path)
    monkeypatch.setattr(ParallelReader, "frames", None)  # not called
    monkeypatch.setattr(ParallelReader, "open", None)
    inputs = together.inputs(SIZE, SPANS)
    np.testing.assert_array_equal(inputs.images[0], images)
    np.testing.assert_array_equal(inputs.audio_clips[0].reshape(clips.shape), clips)


def test_a_video_without_sound_gives_frames_and_texts(silent, model, monkeypatch):
    monkeypatch.setattr(model.audio_encoder, "forward", None)  # not called
    assert not silent.has_sound
    with pytest.raises(BadInput, match="no sound that can be decoded; audio=False gives"):
        silent.inputs(SIZE, audio=True)
    inputs = silent.inputs(SIZE, texts={-1: [50, MASK]})
    assert inputs.audio_clips is None
    assert inputs.tokens[0, :3].tolist() == [50, MASK, PAD]
    assert torch.isfinite(model.embed_video(*inputs)).all()


def test_segments_may_be_plain_tuples(video):
    spans = [(0.0, 2.0, 1.0), (3.0, 9.0, 6.0)]
    plain, named = video.inputs(SIZE, spans), video.inputs(SIZE, [TimeSpan(*span) for span in spans])
    assert all(np.array_equal(one, other) for one, other in zip(plain, named, strict=True))


def test_every_segment_may_have_text(video, monkeypatch):
    monkeypatch.setattr(Video, "waveform", None)  # no sound is decoded
    assert video.inputs(SIZE, texts={0: [11], 1: [11], 2: [11]}).audio_clips is None


def test_more_than_eight_segments_are_refused(video):
    with pytest.raises(ValueError, match="1 to 8 segments; got 9"):
        video.inputs(SIZE, [TimeSpan(0, 1, 0.5)] * 9)


def test_files_that_cannot_be_read_are_named(tmp_path, video):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(BadInput, match=r"text\.mp4: not a media file"):
        reserve.open_video(tmp_path / "text.mp4")
    with pytest.raises(BadInput, match=r"none\.mp4: cannot be opened"):
        reserve.open_video(tmp_path / "none.mp4")
    with pytest.raises(BadInput, match=r"mp4: no audio track 4: it has 1"):
        reserve.open_video(video.path, audio_track=4)
    sound = write_media(tmp_path / "sound.m4a", sounds=[Sound(click_track(2.0, [1.0]))])
    with pytest.raises(BadInput, match=r"sound\.m4a: no video stream"):
        reserve.open_video(sound)


def test_a_video_longer_than_is_read_says_so_once(tmp_path, caplog):
    path = write_video(tmp_path, seconds=6)
    video = reserve.open_video(path, limits=MediaLimits(max_duration=4.0))
    assert (video.duration, video.is_cut) == (4.0, True)
    assert [span.end for span in video.segments(seconds=2.0)] == [2.0, 4.0]
    with pytest.raises(BadInput, match=r"only its first 0\.00111111 h are read; no segment can start at 5 s"):
        video.segments(start=5.0)
    assert [record.getMessage() for record in caplog.records] == [f"{path}: only its first 0.00111111 h are read"]
    assert not reserve.open_video(path).is_cut
