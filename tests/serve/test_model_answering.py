"""A real model behind the server's protocol gives what the library gives."""

from __future__ import annotations

import shutil

import pytest

from reserve.config import TrainConfig
from reserve.data.tokenizer import Tokenizer
from reserve.errors import BadInput
from tests.helpers.served import write_video
from tests.tasks.zero_shot.small_sets import small_model

pytest.importorskip("faiss", reason="searching needs faiss: pip install 'merlot-reserve[search]'")
from reserve.serve.model_answering import ModelAnswering
from reserve.tasks.ask import ask
from reserve.tasks.search import MomentIndex, build_index
from reserve.tasks.search.index import part_files

TEXT = "a red circle"


@pytest.fixture(scope="module")
def answering():
    return ModelAnswering(small_model(), Tokenizer.load(), TrainConfig(precision="float32"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return {
        "f-1": write_video(folder / "one.mp4", seconds=45),
        "f-2": write_video(folder / "two.mp4", seconds=9),
        "f-3": write_video(folder / "silent.mp4", seconds=6, sound=False),
    }


@pytest.fixture(scope="module")
def indexes(answering, videos, tmp_path_factory):
    folders = {video_id: tmp_path_factory.mktemp("indexes") / video_id for video_id in videos}
    for video_id, folder in folders.items():
        assert not answering.is_indexed(folder)
        answering.index(videos[video_id], folder, lambda done, total: None)
        assert answering.is_indexed(folder)
    return folders


def test_answers_are_those_of_ask(answering, videos):
    question, answers = "a man is <|MASK|>.", ["running", "asleep", "a dog"]
    found = answering.ask(videos["f-1"], question, answers, start=1.0, stop=None)
    wanted = ask(videos["f-1"], question, answers, model=answering.model, start=1.0)
    assert [(a.text, a.probability, a.start, a.end) for a in found.answers] == [
        (a.text, a.probability, a.best.start, a.best.end) for a in wanted.ranked
    ]
    assert (found.statement, found.heard) == (wanted.statement, True)


def test_several_indexes_are_searched_as_one(answering, videos, indexes, tmp_path):
    build_index([*videos.values()], tmp_path, answering.model, config=answering.config)
    wanted = MomentIndex.open(tmp_path).search_text(TEXT, 40, model=answering.model)
    found = answering.search_text(indexes, TEXT, 40)
    names = {str(path): video_id for video_id, path in videos.items()}
    assert [(m.video, m.start, m.end, m.score) for m in found] == [
        (names[m.video], m.start, m.end, m.score) for m in wanted
    ]
    assert {m.video for m in found} == set(videos)


def test_only_the_videos_asked_for_are_searched(answering, indexes):
    for video_id in ("f-2", "f-1", "f-2"):
        found = answering.search_text({video_id: indexes[video_id]}, TEXT, 5)
        assert {moment.video for moment in found} == {video_id}


def test_sounds_are_found_where_they_are(answering, videos, indexes):
    heard = {video_id: indexes[video_id] for video_id in ("f-1", "f-2")}
    best = answering.search_sound(heard, videos["f-1"], 20.0, 25.0, 3)[0]
    assert best.score == pytest.approx(1, abs=0.05)
    with pytest.raises(BadInput, match="have no sound"):
        answering.search_sound({"f-3": indexes["f-3"]}, videos["f-1"], 0.0, 5.0, 3)


def test_an_index_goes_on_where_it_stopped_and_shows_how_far_it_is(answering, videos, tmp_path):
    shown = []
    answering.index(videos["f-1"], tmp_path, lambda done, total: shown.append((done, total)))
    assert shown == [(0, 2), (1, 2)]
    answering.index(videos["f-1"], tmp_path, lambda done, total: shown.append((done, total)))
    assert len(shown) == 2


def test_an_index_can_move_with_its_folder(answering, indexes, tmp_path):
    shutil.copytree(indexes["f-2"], tmp_path / "moved")
    assert answering.search_text({"u-9": tmp_path / "moved"}, TEXT, 1)[0].video == "u-9"


def test_an_index_with_a_damaged_header_is_made_again(answering, videos, indexes, tmp_path):
    shutil.copytree(indexes["f-2"], tmp_path / "index")
    (part,) = part_files(tmp_path / "index")
    whole = part.read_bytes()
    assert answering.is_indexed(tmp_path / "index")
    part.write_bytes(whole[:100])
    assert not answering.is_indexed(tmp_path / "index")
    answering.index(videos["f-2"], tmp_path / "index", lambda done, total: None)
    assert answering.is_indexed(tmp_path / "index")
    assert part.read_bytes() == whole


def test_an_index_whose_vectors_are_damaged_is_removed_by_a_search(answering, indexes, tmp_path):
    shutil.copytree(indexes["f-2"], tmp_path / "index")
    (part,) = part_files(tmp_path / "index")
    content = bytearray(part.read_bytes())
    content[-3] ^= 1
    part.write_bytes(content)
    both = {"f-1": indexes["f-1"], "f-2": tmp_path / "index"}
    assert answering.is_indexed(tmp_path / "index")
    with pytest.raises(BadInput, match="1 of the indexes searched were damaged; search again"):
        answering.search_text(both, TEXT, 3)
    assert [answering.is_indexed(folder) for folder in both.values()] == [True, False]


def test_an_answer_that_is_cut_says_what_was_read(answering, videos):
    long = "word " * 20
    found = answering.ask(videos["f-2"], "a man is <|MASK|>.", ["running", long], start=0.0, stop=None)
    read = {answer.text: answer.read for answer in found.answers}
    assert read == {"running": None, long.strip(): " ".join(["word"] * 15)}


def test_another_model_has_another_identity(answering):
    other = small_model()
    other.get_parameter(next(name for name, _ in other.named_parameters())).data.add_(1)
    assert ModelAnswering(other, answering.tokenizer, answering.config).identity != answering.identity
    assert ModelAnswering(small_model(), answering.tokenizer, answering.config).identity == answering.identity
