import json
import os
import pickle
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reserve.batch.vocabulary import MASK, RESETCTX, SPECIAL_TOKENS, UNK, VOCABULARY_SIZE
from reserve.data.tokenizer import MAX_FILE_BYTES, Tokenizer

SHIPPED = files("reserve").joinpath("assets/tokenizer.json")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load()


@pytest.fixture(scope="module")
def content() -> dict:
    return json.loads(SHIPPED.read_text("utf-8"))


@pytest.fixture(scope="module")
def small(content) -> dict:
    """A file with the special tokens and bytes alone."""
    vocabulary = {token: number for token, number in content["model"]["vocab"].items() if number < 184}
    return {**content, "model": {**content["model"], "merges": [], "vocab": vocabulary}}


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), "utf-8")
    return path


def test_shipped_vocabulary_is_full(tokenizer):
    assert tokenizer.vocab_size == VOCABULARY_SIZE


def test_bytes_follow_the_special_tokens_as_in_the_released_file(content):
    tokens = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    assert tuple(tokens[:10]) == SPECIAL_TOKENS
    assert [tokens[i] for i in (10, 35, 48, 149, 183)] == ["!", ":", "a", "Ġ", "Ń"]


@pytest.mark.parametrize("text", ["the quick brown fox jumps over the lazy dog", "it's 10:45, don't panic!", "a b  c"])
def test_decode_gives_back_lower_case_text_after_a_space(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == f" {text}"


def test_case_and_accents_do_not_matter(tokenizer):
    assert tokenizer.encode("Naïve CAFÉ") == tokenizer.encode("naive cafe")


def test_special_strings_in_text_become_their_ids(tokenizer):
    ids = tokenizer.encode("in this video i'll be<|MASK|>")
    assert ids[-1] == MASK
    assert ids[:-1] == tokenizer.encode("in this video i'll be")


def test_empty_text_has_no_tokens(tokenizer):
    assert tokenizer.encode("") == []


def test_common_words_are_single_tokens(tokenizer):
    words = ["the", "people", "because", "something", "water", "circle", "purple", "seven", "music", "slowly", "around"]
    assert [len(ids) for ids in tokenizer.encode_words(words)] == [1] * len(words)


def test_words_are_tokenised_as_inside_running_text(tokenizer):
    words = ["We", "can't", "stop-watching", "naïve", "supercalifragilistic", "videos,", "1,000", "of", "them!"]
    assert [i for ids in tokenizer.encode_words(words) for i in ids] == tokenizer.encode(" ".join(words))


def test_cached_words_cannot_be_changed_by_the_caller(tokenizer):
    tokenizer.encode_words(["window"])[0].append(7)
    assert tokenizer.encode_words(["window"]) == [tokenizer.encode("window")]


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF), max_size=40))
def test_any_text_gives_ids_of_the_vocabulary(tokenizer, text):
    ids = tokenizer.encode(text)
    assert all(0 <= token < tokenizer.vocab_size for token in ids)
    assert isinstance(tokenizer.decode(ids), str)


def test_lone_surrogates_are_question_marks(tokenizer):
    assert tokenizer.encode("a\ud800b") == tokenizer.encode("a?b")


def test_plain_tokens_hold_letters_digits_spaces_and_apostrophes(tokenizer):
    assert tokenizer.is_plain(np.array(tokenizer.encode("it's 10 words"))).all()
    assert not tokenizer.is_plain(np.array(tokenizer.encode("?!:😀"))).any()


def test_ids_up_to_ten_are_never_plain(tokenizer):
    assert not tokenizer.is_plain(np.arange(11)).any()


def test_plain_keeps_the_shape(tokenizer):
    assert tokenizer.is_plain(np.full((2, 3), 48, np.int32)).tolist() == [[True] * 3] * 2


def test_plain_refuses_ids_outside_the_vocabulary(tokenizer):
    with pytest.raises(ValueError, match=r"\[0, 32768\); got -1 to 32768"):
        tokenizer.is_plain(np.array([-1, 32768]))


def test_a_pickled_tokenizer_works(tokenizer):
    assert pickle.loads(pickle.dumps(tokenizer)).encode("hello world") == tokenizer.encode("hello world")


def test_a_copy_in_the_released_format_loads(tmp_path, content, tokenizer):
    content = json.loads(json.dumps(content))
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]  # as the released file has it
    loaded = Tokenizer.load(write(tmp_path / "lowercase_encoder.json", content))
    assert loaded.encode("Hello world, again") == tokenizer.encode("Hello world, again")


def test_smaller_vocabularies_load(tmp_path, small):
    assert Tokenizer.load(write(tmp_path / "bytes.json", small)).decode([48, 49]) == "ab"


def set_in(content: dict, path: str, value: object) -> dict:
    """A copy of nested dicts with one value replaced."""
    first, _, rest = path.partition("/")
    return {**content, first: set_in(content[first], rest, value) if rest else value}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model/vocab", {}, "must map 11 to 32768 tokens to ids; got 0 entries"),
        ("model/vocab", [1, 2], "got list"),
        ("model/vocab/<|PAD|>", "zero", "must be the integers 0 to 183"),
        ("model/vocab/<|PAD|>", 10**12, "must be the integers 0 to 183"),
        ("model/merges", [["Ġ", "nowhere"]], "uses 'nowhere', which model.vocab lacks"),
        ("model/merges", [[1, 2]], "not a pair of tokens"),
        ("model/merges", None, "must be a list; got NoneType"),
        ("model/type", "WordPiece", "model must be of type BPE"),
        ("model", 3, "model must be of type BPE"),
        ("added_tokens", [], "added_tokens must be"),
        ("added_tokens", [1], "list of objects"),
        ("normalizer", None, "normalizer.type must be 'BertNormalizer'"),
        ("normalizer/lowercase", False, "normalizer.lowercase must be True"),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a+)+$"}}, "pre_tokenizer.type"),
        ("truncation", {"max_length": 4}, "truncation must be null"),
        ("pre_tokenizer/use_regex", False, "pre_tokenizer.use_regex must be True or absent; got False"),
        ("model/continuing_subword_prefix", "##", "model.continuing_subword_prefix must be '' or absent; got '##'"),
        ("model/end_of_word_suffix", "</w>", "model.end_of_word_suffix must be ''"),
        ("model/byte_fallback", True, "model.byte_fallback must be False"),
        ("model/ignore_merges", True, "model.ignore_merges must be False"),
    ],
)
def test_files_of_another_layout_are_refused(tmp_path, small, path, value, message):
    file = write(tmp_path / "hostile.json", set_in(small, path, value))
    with pytest.raises(ValueError, match=message) as error:
        Tokenizer.load(file)
    assert str(file) in str(error.value)


def test_vocabulary_that_is_too_large_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match="must map 11 to 32768 tokens to ids; got 32769 entries"):
        Tokenizer.load(write(tmp_path / "large.json", set_in(content, "model/vocab/one more", 32768)))


def test_swapped_special_tokens_are_refused(tmp_path, small):
    vocabulary = {**small["model"]["vocab"], "<|UNK|>": RESETCTX, "<|RESETCTX|>": UNK}
    with pytest.raises(ValueError, match=r"<\|UNK\|> must have id 8 in model.vocab; it has 9"):
        Tokenizer.load(write(tmp_path / "swapped.json", set_in(small, "model/vocab", vocabulary)))


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe\x00", b"[1, 2", b'"text"', b"null", b"[" * 100_000, SHIPPED.read_bytes()[:500_000]],
    ids=["empty", "binary", "cut list", "string", "null", "deep", "truncated"],
)
def test_files_that_are_not_a_tokenizer_are_refused(tmp_path, data):
    file = tmp_path / "broken.json"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"broken\.json: not a tokenizer file"):
        Tokenizer.load(file)


def test_huge_files_are_refused_unread(tmp_path):
    file = tmp_path / "huge.json"
    file.touch()
    os.truncate(file, MAX_FILE_BYTES + 1)
    with pytest.raises(ValueError, match=r"huge\.json: 33554433 bytes is too large"):
        Tokenizer.load(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        Tokenizer.load(tmp_path / "nowhere.json")


def test_released_vocabulary_gives_the_recorded_ids(shared_dir):
    path = os.environ.get("RESERVE_LOWERCASE_ENCODER")
    if path is None:
        pytest.skip("RESERVE_LOWERCASE_ENCODER does not name a released lowercase_encoder.json")
    released = Tokenizer.load(path)
    cases = json.loads((shared_dir / "golden" / "tokenizer_cases.json").read_text("utf-8"))
    assert [released.encode(case["text"]) for case in cases] == [case["ids"] for case in cases]
