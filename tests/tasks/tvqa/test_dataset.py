"""Questions as examples: what they hold, what is random, and what is stored."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from reserve.batch.vocabulary import MASK, START
from reserve.data.tokenizer import Tokenizer
from reserve.errors import BadInput
from reserve.tasks.record_cache import RecordCache
from reserve.tasks.tvqa.annotations import Questions
from reserve.tasks.tvqa.clip_files import ClipFiles
from reserve.tasks.tvqa.dataset import TvqaDataset, TvqaSettings, seven_segments, shifted_sound
from reserve.tasks.tvqa.stored import VERSION
from tests.helpers.tvqa_folder import SIZES, question, write_questions


def dataset(folder, cache, *, training=False, seed=0):
    questions = Questions(folder, "train")
    return TvqaDataset(
        questions,
        np.arange(len(questions)),
        ClipFiles(folder),
        RecordCache(cache, VERSION),
        Tokenizer.load(),
        SIZES,
        TvqaSettings(),
        seed=seed,
        training=training,
    )


def arrays(example):
    return (example.images, example.audio_clips, example.audio.ids, example.text.ids, example.text.segments)


def test_an_example_shows_its_clip(tvqa_folder, tmp_path):
    red = dataset(tvqa_folder, tmp_path)[0, 0]
    tokenizer = Tokenizer.load()

    # 12 s hold three segments: [-2.67, 2], [2, 6.67] around the span, [6.67, 11.33]; the fourth starts at 11.33.
    assert red.images.shape == (7, 32, 64, 3)
    assert red.images.dtype == np.float32
    assert (red.images[:4, 10, 0].argmax(-1) == 0).all()
    assert not red.images[4:].any()
    assert red.audio_clips.shape == (7, 3, 60, 65)
    assert (red.audio_clips[..., -1] == 1).all()
    assert not red.audio_clips[4:, ..., :-1].any()
    assert red.audio_clips[1, ..., :-1].max() > 1
    words = tokenizer.decode(red.text.ids[0])
    assert " 27 to 47<|START|> which colour is it? answer:  surely red<|MASK|> it is red!<|PAD|>" in words
    assert (red.text.segments[0] == 2).sum() == len(tokenizer.encode("It is red!"))
    prefix = tokenizer.encode("27 to 47")
    assert red.text.ids[0, : len(prefix) + 1].tolist() == [*prefix, START]
    assert (red.text.ids == MASK).sum(1).tolist() == [1] * 5
    assert red.label == 0


def test_draws_are_a_function_of_seed_epoch_and_index(tvqa_folder, tmp_path):
    one, other = (
        dataset(tvqa_folder, tmp_path / "a", training=True),
        dataset(tvqa_folder, tmp_path / "b", training=True),
    )

    for first, second in zip(arrays(one[3, 1]), arrays(other[3, 1]), strict=True):
        np.testing.assert_array_equal(first, second)
    for changed in (one[4, 1], dataset(tvqa_folder, tmp_path / "a", training=True, seed=1)[3, 1]):
        assert not np.array_equal(changed.images, one[3, 1].images)
        np.testing.assert_array_equal(changed.text.ids, one[3, 1].text.ids)


def test_nothing_is_random_in_validation(tvqa_folder, tmp_path):
    for first, second in zip(
        arrays(dataset(tvqa_folder, tmp_path, seed=0)[0, 2]),
        arrays(dataset(tvqa_folder, tmp_path, seed=5)[7, 2]),
        strict=True,
    ):
        np.testing.assert_array_equal(first, second)


def test_a_damaged_stored_question_is_prepared_again(tvqa_folder, tmp_path, caplog):
    before = dataset(tvqa_folder, tmp_path)[0, 0]
    (path,) = tmp_path.rglob("*.zip")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])

    with caplog.at_level(logging.WARNING):
        again = dataset(tvqa_folder, tmp_path)[0, 0]

    assert "damaged" in caplog.text
    assert path.read_bytes() == content
    for first, second in zip(arrays(before), arrays(again), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_clip_that_changes_is_prepared_again(changed_folder, tmp_path):
    before = dataset(changed_folder, tmp_path)[0, 0].text.ids
    question = Questions(changed_folder, "train")[0]
    ClipFiles(changed_folder).subtitles(question).write_text("1\n00:00:03,000 --> 00:00:05,000\nSomething else.\n")
    assert not np.array_equal(dataset(changed_folder, tmp_path)[0, 0].text.ids, before)


def test_stored_questions_need_no_media(changed_folder, tmp_path):
    before = dataset(changed_folder, tmp_path / "cache")[0, 0]
    for path in (changed_folder / "audios").rglob("*.mp3"):
        path.unlink()

    np.testing.assert_array_equal(dataset(changed_folder, tmp_path / "cache")[0, 0].images, before.images)


@pytest.mark.parametrize("ts", ["nan-nan", "100-200", "-5-0.1", "-5--40", "11.9-12", "6-3"])
def test_odd_spans_are_shown(changed_folder, tmp_path, ts):
    write_questions(changed_folder, "train", [question(1, "castle", 1, "red", ts)])

    example = dataset(changed_folder, tmp_path / "cache")[0, 0]

    assert np.isfinite(example.audio_clips).all()
    assert example.images[0].any()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("audios/castle/castle_audios/castle_s01e01_seg01_clip_00.mp3", r"castle_s01e01_seg01_clip_00\.mp3: "),
        ("tvqa_frames/frames_hq/castle_frames/castle_s01e01_seg01_clip_00/00014.jpg", r"00014\.jpg: .*JPEG"),
        ("tvqa_subtitles/castle_s01e01_seg01_clip_00.srt", r"castle_s01e01_seg01_clip_00\.srt: not SRT"),
    ],
)
def test_a_damaged_file_is_named(changed_folder, tmp_path, damage, message):
    (changed_folder / damage).write_bytes(b"damaged" * 40)

    with pytest.raises(BadInput, match=message):
        dataset(changed_folder, tmp_path / "cache")[0, 0]


def test_a_clip_without_pictures_is_named(changed_folder, tmp_path):
    folder = changed_folder / "tvqa_frames/frames_hq/castle_frames/castle_s01e01_seg01_clip_00"
    for path in folder.iterdir():
        path.unlink()

    with pytest.raises(BadInput, match=r"castle_s01e01_seg01_clip_00 holds no picture"):
        dataset(changed_folder, tmp_path / "cache")[0, 0]


def test_sound_is_delayed_behind_noise_of_its_own_kind():
    rng = np.random.default_rng(0)
    log_mels = rng.normal(5, 0.1, (2, 180, 65)).astype(np.float32)
    log_mels[..., -1] = 1
    flat = log_mels.reshape(-1, 65)

    delays = set()
    for seed in range(60):
        shifted = shifted_sound(log_mels, np.random.default_rng(seed)).reshape(-1, 65)
        (delay,) = [d for d in range(5) if np.array_equal(shifted[d:], flat[: len(flat) - d])]
        assert np.abs(shifted[:delay] - flat.mean(0)).max(initial=0.0) < 1
        assert (shifted[:, -1] == 1).all()
        delays.add(delay)
    assert delays == {0, 1, 2, 3, 4}


def test_missing_segments_are_silent():
    padded = seven_segments(np.full((3, 180, 65), 2, np.float32))

    assert not padded[3:, :, :-1].any()
    assert (padded[..., -1] == 1).all()


@pytest.mark.parametrize("change", [{"lang_seq_len": 1}, {"random_scale_min": 0.0}, {"random_scale_max": 0.5}])
def test_bad_settings_are_named(change):
    with pytest.raises(ValueError, match=f"examples.{next(iter(change))}"):
        TvqaSettings(**change)
