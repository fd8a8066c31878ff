from __future__ import annotations

import numpy as np
import pytest
import torch

from reserve.data.decode import MediaLimits
from reserve.data.tokenizer import Tokenizer
from reserve.data.video import open_video
from reserve.errors import BadInput
from reserve.tasks.search import Moment, MomentIndex, build_index
from reserve.tasks.search import index as index_module
from reserve.tasks.search.index import model_identity, part_files, sound_vector, write_manifest
from reserve.tasks.search.parts import Moments, PartHeader, read_part, write_part
from tests.helpers.media_files import click_track
from tests.tasks.search.small_index import write_video, write_videos
from tests.tasks.zero_shot.small_sets import small_model

pytest.importorskip("faiss", reason="searching needs faiss: pip install 'merlot-reserve[search]'")


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def built(model, tmp_path_factory):
    """An index of three videos."""
    folder = tmp_path_factory.mktemp("built")
    build_index([write_videos(folder / "videos"), write_video(folder / "third.mp4", 30, 4)], folder / "index", model)
    return folder


def synthetic(folder, words, starts, videos, model="model"):
    """An index of one part with given unit vectors [moments, 64]."""
    write_manifest(folder, model, 64)
    start, video = np.array(starts, float), np.array(videos, np.int32)
    names = tuple(f"{number}.mp4" for number in range(max(videos) + 1))
    vectors = np.asarray(words, np.float16)
    number = len(part_files(folder))
    write_part(
        folder / "parts" / f"{number}.safetensors",
        PartHeader(model, f"key {number}", "", names, ()),
        Moments(start, start + 1.5, video, vectors, vectors[:0], np.zeros(0, np.int32)),
    )
    return folder


def unit(seed: int, count: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, 64))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def all_moments(folder, query):
    """Every moment's score of a text's vector, its video and its start."""
    found, parts = [], [read_part(path) for path in part_files(folder)]
    heard = np.concatenate([moments.sounds.astype(float) @ query for _, moments in parts])
    for header, moments in parts:
        names = [header.videos[number] for number in moments.video]
        words, sounds = moments.words.astype(float) @ query, np.full(len(names), heard.mean())
        sounds[moments.sound_moment] = moments.sounds.astype(float) @ query
        found += list(zip((words + sounds) / 2, names, moments.start, strict=True))
    return found


def text_vector(model, text: str) -> np.ndarray:
    ids = Tokenizer.load().encode(text)[:15]
    with torch.inference_mode():
        return model.embed_text_spans(np.array([ids + [0] * (15 - len(ids))], np.int32))[0].numpy()


def test_text_finds_the_moments_whose_words_and_sound_are_closest_to_its_own(model, built):
    found = MomentIndex.open(built / "index").search_text("a red circle", 1000, model=model, gap=0)
    query = text_vector(model, "a red circle")
    expected = sorted(all_moments(built / "index", query))
    assert len(found) == len(expected) == 30 + 9 + 18
    np.testing.assert_allclose([moment.score for moment in found], [score for score, *_ in expected[::-1]], atol=2e-4)
    by_place = {(video, start): score for score, video, start in expected}
    for moment in found:
        assert moment.score == pytest.approx(by_place[moment.video, moment.start], abs=2e-4)
        assert moment.start < moment.end


def test_a_sound_finds_the_vectors_closest_to_its_own(model, built):
    sound = built / "third.mp4"
    found = MomentIndex.open(built / "index").search_sound(sound, 5, 10, 1000, model=model, gap=0)
    query = sound_vector(sound, 5, 10, model)
    stored = [read_part(path)[1].sounds.astype(float) @ query for path in part_files(built / "index")]
    assert len(found) == 30 + 18, "the moments that have sound"
    np.testing.assert_allclose([moment.score for moment in found], np.sort(np.concatenate(stored))[::-1], atol=1e-5)
    assert {moment.video for moment in found} == {str(built / "videos" / "long.mp4"), str(sound)}


def test_moments_of_one_video_are_apart(model, built):
    found = MomentIndex.open(built / "index").search_text("a red circle", 1000, model=model, gap=7.0)
    by_video: dict[str, list[float]] = {}
    for moment in found:
        by_video.setdefault(moment.video, []).append(moment.start)
    assert len(by_video) == 3
    for starts in by_video.values():
        assert np.diff(sorted(starts)).min() >= 7.0 - 1e-9


def test_the_best_of_neighbours_is_kept_and_other_videos_are_none(tmp_path, model, monkeypatch):
    query = text_vector(model, "go")
    scores = np.array([0.9, 0.95, 0.8, 0.85, 0.7])
    other = np.roll(query, 1) - query * (np.roll(query, 1) @ query)
    other /= np.linalg.norm(other)
    words = scores[:, None] * query + np.sqrt(1 - scores**2)[:, None] * other
    folder = synthetic(tmp_path, words, [0.0, 2.0, 6.9, 0.0, 7.0], [0, 0, 0, 1, 0], model_identity(model))
    found = MomentIndex.open(folder).search_text("go", 10, model=model, gap=5.0)
    assert [(moment.video, moment.start) for moment in found] == [("0.mp4", 2.0), ("1.mp4", 0.0), ("0.mp4", 7.0)]
    np.testing.assert_allclose([moment.score for moment in found], [0.95, 0.85, 0.7], atol=2e-3)


def test_a_search_goes_on_until_enough_moments_are_distinct(tmp_path, model, monkeypatch):
    monkeypatch.setattr(index_module, "_FETCHED", 1)
    query = text_vector(model, "go")
    # 40 neighbours in one video are all better than the one moment of the other.
    words = np.concatenate((np.repeat(query[None], 40, 0), 0.5 * query[None]))
    folder = synthetic(tmp_path, words, [*np.arange(40) / 100, 3.0], [0] * 40 + [1], model_identity(model))
    found = MomentIndex.open(folder).search_text("go", 2, model=model)
    assert [moment.video for moment in found] == ["0.mp4", "1.mp4"]
    assert len(MomentIndex.open(folder).search_text("go", 3, model=model)) == 2


def test_parts_are_searched_together(tmp_path, model):
    words = unit(0, 50)
    synthetic(tmp_path, words[:20], np.arange(20) * 10, [0] * 20, model_identity(model))
    synthetic(tmp_path, words[20:], np.arange(30) * 10, [0] * 15 + [1] * 15, model_identity(model))
    index = MomentIndex.open(tmp_path)
    query = text_vector(model, "blue")
    found = index.search_text("blue", 50, model=model)
    order = np.argsort(-(words.astype(np.float16).astype(float) @ query))
    starts = np.concatenate((np.arange(20), np.arange(30))) * 10.0
    assert [moment.start for moment in found] == starts[order].tolist()


def test_the_sound_of_a_query_is_the_mean_of_its_subsegments(model, built):
    video = open_video(built / "third.mp4")
    found = sound_vector(built / "third.mp4", 5.0, 17.0, model)
    spans = video.segments(start=5.0, stop=17.0)
    with torch.inference_mode():
        vectors = model.embed_audio(video.clips(spans)).numpy()
    mean = np.concatenate((vectors[:2].reshape(-1, 64), vectors[2])).mean(0)  # the last 2 s have all three
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)


def test_a_short_sound_is_its_middle_subsegment_alone(model, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "short.wav", click_track(1.5, [0.7], rate=22050), 22050)
    found = sound_vector(tmp_path / "short.wav", 0.0, None, model)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (3, 3), (3, 2), (float("nan"), None)])
def test_times_of_a_sound_are_checked(model, built, start, stop):
    with pytest.raises(ValueError, match="start must be at least 0 and stop after it"):
        sound_vector(built / "third.mp4", start, stop, model)


def test_sounds_that_cannot_be_searched_for_say_why(model, built, tmp_path):
    index = MomentIndex.open(built / "index")
    with pytest.raises(BadInput, match=r"its sound ends at 30\.\d+ s; there is none to search with from 40 s"):
        index.search_sound(built / "third.mp4", 40, model=model)
    with pytest.raises(BadInput, match="it has no sound"):
        index.search_sound(built / "videos" / "silent.mp4", model=model)
    build_index([built / "videos" / "silent.mp4"], tmp_path, model)
    with pytest.raises(ValueError, match="none of its videos has sound to compare with"):
        MomentIndex.open(tmp_path).search_sound(built / "third.mp4", model=model)


def test_a_sound_past_what_is_read_of_a_file_says_how_much_that_is(model, built, monkeypatch):
    monkeypatch.setattr(index_module, "MediaLimits", lambda: MediaLimits(max_duration=30.0))
    with pytest.raises(BadInput, match=r"its sound is read for the first 0\.00833333 h only; there is none"):
        sound_vector(built / "third.mp4", 40, None, model)


def test_settings_of_a_search_are_checked(model, built, caplog):
    index = MomentIndex.open(built / "index")
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        index.search_text("red", 0, model=model)
    with pytest.raises(ValueError, match="gap must be at least 0; got nan"):
        index.search_text("red", model=model, gap=float("nan"))
    for text in ("", "<|MASK|>"):
        with pytest.raises(ValueError, match="must have words"):
            index.search_text(text, model=model)
    index.search_text("very " * 19 + "red", model=model)
    assert "the text has 20 tokens; the model reads the first 15" in caplog.text


def test_another_model_is_refused(model, built):
    other = small_model()
    with torch.no_grad():
        other.head.weight.mul_(1.01)
    index = MomentIndex.open(built / "index")
    with pytest.raises(ValueError, match="was made by another model"):
        index.search_text("red", model=other)
    with pytest.raises(ValueError, match="was made by another model"):
        index.search_sound(built / "third.mp4", model=other)


def test_a_part_of_another_model_is_refused(tmp_path):
    synthetic(tmp_path, unit(0, 2), [0, 9], [0, 0])
    synthetic(tmp_path, unit(0, 2), [0, 9], [0, 0], model="other")
    write_manifest(tmp_path, "model", 64)
    with pytest.raises(BadInput, match=r"1\.safetensors was made by another model than .*index\.json says"):
        MomentIndex.open(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"format": "x"}', '{"format": "reserve-moments-1", "model": 3, "hidden": 64}'],
)
def test_a_damaged_manifest_is_refused(tmp_path, content):
    synthetic(tmp_path, unit(0, 2), [0, 9], [0, 0])
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(BadInput, match=r"index\.json is no manifest of an index of moments: "):
        MomentIndex.open(tmp_path)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"index\.json is no manifest .*No such file"):
        MomentIndex.open(tmp_path)


def test_a_damaged_part_is_an_error_of_the_search(tmp_path, model):
    synthetic(tmp_path, unit(0, 9), range(9), [0] * 9, model_identity(model))
    (part,) = part_files(tmp_path)
    content = bytearray(part.read_bytes())
    content[-400] ^= 64
    part.write_bytes(content)
    index = MomentIndex.open(tmp_path)
    with pytest.raises(BadInput, match=r"0\.safetensors is damaged.*delete it, and the next build"):
        index.search_text("red", model=model)


def test_a_part_that_changed_since_the_index_was_opened_is_an_error(tmp_path, model):
    synthetic(tmp_path, unit(0, 2), [0, 9], [0, 0], model_identity(model))
    index = MomentIndex.open(tmp_path)
    (part,) = part_files(tmp_path)
    synthetic(tmp_path, unit(0, 3), [0, 9, 18], [0, 0, 0], model_identity(model))
    part_files(tmp_path)[1].replace(part)
    with pytest.raises(BadInput, match="has changed since the index was opened"):
        index.search_text("red", model=model)


def test_an_empty_index_finds_nothing(tmp_path, model):
    write_manifest(tmp_path, model_identity(model), 64)
    index = MomentIndex.open(tmp_path)
    assert (len(index), index.videos, index.search_text("red", model=model)) == (0, [], [])


def test_a_moment_is_json():
    moment = Moment("a.mp4", 1.0, 2.5, 0.5, "set")
    assert moment.to_json() == {"video": "a.mp4", "start": 1.0, "end": 2.5, "score": 0.5, "place": "set"}


def test_a_vector_is_searched_for_as_it_is(tmp_path):
    words = unit(0, 30)
    index = MomentIndex.open(synthetic(tmp_path, words, np.arange(30) * 10, [0] * 30))
    vector = words[4]
    (best,) = index.search_vector("text", vector, 1)
    assert (best.video, best.start) == ("0.mp4", 40.0)
    assert best.score == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="kind must be 'text' or 'sounds'; got 'frames'"):
        index.search_vector("frames", vector)
    with pytest.raises(ValueError, match=r"query must be \[64\]; got \[1, 64\]"):
        index.search_vector("text", vector[None])
