from importlib.resources import files

import pytest

from reserve.data.tokenizer import Tokenizer
from reserve.synthetic.train_tokenizer import train_tokenizer

WORDS = {"window": 250_000, "winter": 200_000, "water": 150_000, "wonderful": 100_000, "river": 50_000}
SIZE = 900


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "vocabulary.json"
    train_tokenizer(path, WORDS, SIZE)
    return path


def test_trained_vocabulary_has_the_requested_size_and_its_words_as_tokens(vocabulary):
    tokenizer = Tokenizer.load(vocabulary)
    assert tokenizer.vocab_size == SIZE
    assert [len(ids) for ids in tokenizer.encode_words(WORDS)] == [1] * len(WORDS)


def test_same_words_give_the_same_file_in_any_order(vocabulary, tmp_path):
    train_tokenizer(tmp_path / "again.json", dict(reversed(WORDS.items())), SIZE)
    assert (tmp_path / "again.json").read_bytes() == vocabulary.read_bytes()


def test_an_unwritable_target_is_an_os_error(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        train_tokenizer(tmp_path / "folder", WORDS, SIZE)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        train_tokenizer(tmp_path / "file" / "vocabulary.json", WORDS, SIZE)
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file"}


def test_too_few_words_are_refused_and_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"the words yield only \d+ tokens; the vocabulary must have 30000"):
        train_tokenizer(tmp_path / "vocabulary.json", WORDS, 30_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_training_reproduces_the_shipped_file(tmp_path):
    pytest.importorskip("spellchecker", reason="pyspellchecker is not installed")
    train_tokenizer(tmp_path / "vocabulary.json")
    assert (tmp_path / "vocabulary.json").read_bytes() == files("reserve").joinpath(
        "assets/tokenizer.json"
    ).read_bytes()
