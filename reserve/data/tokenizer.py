"""Text to token ids and back: the byte-level BPE of SPEC 3, our own vocabulary or the released one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from reserve.batch.vocabulary import SPECIAL_TOKENS, VOCABULARY_SIZE

MAX_FILE_BYTES = 32 * 2**20
"""Larger files are not read; a full vocabulary takes 2 MiB."""
MAX_CACHED_WORDS = 2**17
PLAIN_TEXT = re.compile(r"[ A-Za-z0-9']*")

LAYOUT: dict[str, dict[str, Any]] = {
    "normalizer": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": True,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True},
    "decoder": {"type": "ByteLevel"},
}
"""The released file's settings for text before and after BPE. Other settings give other tokens."""

PLAIN_SETTINGS: dict[str, dict[str, Any]] = {
    "pre_tokenizer": {"use_regex": True},
    "model": {
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "byte_fallback": False,
        "ignore_merges": False,
    },
}
"""Defaults of further settings that change tokens and that a file may omit or set to null."""


class Tokenizer:
    """A vocabulary in the released layout. `Tokenizer.load` reads one."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._word_ids: dict[str, list[int]] = {}

    @classmethod
    def load(cls, path: str | Path | None = None) -> Tokenizer:
        """Reads the vocabulary in `path`, a `tokenizers` JSON such as the released `lowercase_encoder.json`, or the one
        this package ships if `path` is None.

        Raises FileNotFoundError if there is no such file, and ValueError naming the file and the fault if it is not in
        the released layout: at most 32768 entries with ids from 0 without gaps, the special tokens at ids 0 to 9,
        byte-level BPE behind BERT's normaliser.
        """
        try:
            from tokenizers import Tokenizer as Backend
        except ImportError as error:
            raise ImportError(
                "text needs the tokenizers package: pip install 'merlot-reserve[train]'", name="tokenizers"
            ) from error

        if path is None:
            return cls(Backend.from_str(files("reserve").joinpath("assets/tokenizer.json").read_text("utf-8")))
        text = read_layout(Path(path))
        try:
            return cls(Backend.from_str(text))
        except Exception as error:  # the backend raises nothing more specific
            raise ValueError(f"{path}: not a tokenizer file: {error}") from error

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special ones included."""
        return int(self._backend.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, lower-cased and without accents. The first word is encoded as if a space came before it.

        The strings of special tokens (`<|MASK|>`) become their ids, as in the reference.
        """
        return list(self._backend.encode(_without_surrogates(text)).ids)

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of untrusted text, without special tokens that it may spell."""
        return [token for token in self.encode(text) if token >= len(SPECIAL_TOKENS)]

    def encode_words(self, words: Iterable[str]) -> list[list[int]]:
        """Token ids of each word as in running text, with the space before it. Cached by word."""
        if len(self._word_ids) > MAX_CACHED_WORDS:
            self._word_ids.clear()
        ids = []
        for word in words:
            if word not in self._word_ids:
                self._word_ids[word] = self.encode(word)
            ids.append(list(self._word_ids[word]))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, special tokens as their strings. Bytes that are not UTF-8 become U+FFFD."""
        return str(self._backend.decode([int(token) for token in ids], skip_special_tokens=False))

    def is_plain(self, ids: np.ndarray) -> np.ndarray:
        """Which token ids [...] consist of letters, digits, spaces and apostrophes: bool [...] (SPEC 7).

        Raises ValueError if an id is out of range.
        """
        ids = np.asarray(ids)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise ValueError(f"ids must be in [0, {self.vocab_size}); got {int(ids.min())} to {int(ids.max())}")
        return self._plain_ids[ids.astype(np.int64)]

    @cached_property
    def _plain_ids(self) -> np.ndarray:
        texts = self._backend.decode_batch([[token] for token in range(self.vocab_size)], skip_special_tokens=False)
        return np.array([token > 10 and PLAIN_TEXT.fullmatch(text) is not None for token, text in enumerate(texts)])


def read_layout(path: Path) -> str:
    """The content of a tokenizer file. Raises ValueError naming the file if its layout is not the released one."""
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{path}: {size} bytes is too large for a tokenizer file; at most {MAX_FILE_BYTES} are read")
    try:
        text = path.read_text("utf-8")
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a tokenizer file: not JSON: {error}") from error
    try:
        _check_layout(content)
    except ValueError as error:
        raise ValueError(f"{path}: not a tokenizer file in the released layout: {error}") from error
    return text


def _check_layout(content: Any) -> None:
    """Raises ValueError naming the part of the JSON `content` that differs from the released layout."""
    if not isinstance(content, dict):
        raise ValueError(f"the top level must be an object; got {type(content).__name__}")
    for part, wanted in LAYOUT.items():
        found = content.get(part)
        for key, value in wanted.items():
            if not isinstance(found, dict) or found.get(key) != value:
                raise ValueError(f"{part}.{key} must be {value!r}")
    for part, defaults in PLAIN_SETTINGS.items():
        found = content.get(part)
        for key, value in defaults.items():
            if isinstance(found, dict) and found.get(key) not in (None, value):
                raise ValueError(f"{part}.{key} must be {value!r} or absent; got {found[key]!r:.80}")
    for part in ("truncation", "padding", "post_processor"):
        if content.get(part) is not None:
            raise ValueError(f"{part} must be null")
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE" or model.get("dropout") is not None:
        raise ValueError("model must be of type BPE, without dropout")
    vocabulary = _checked_vocabulary(model.get("vocab"))
    _check_merges(model.get("merges"), vocabulary)
    _check_added_tokens(content.get("added_tokens"))


def _checked_vocabulary(vocabulary: Any) -> dict[str, int]:
    smallest = len(SPECIAL_TOKENS) + 1
    if not isinstance(vocabulary, dict) or not smallest <= len(vocabulary) <= VOCABULARY_SIZE:
        found = f"{len(vocabulary)} entries" if isinstance(vocabulary, dict) else type(vocabulary).__name__
        raise ValueError(f"model.vocab must map {smallest} to {VOCABULARY_SIZE} tokens to ids; got {found}")
    ids = list(vocabulary.values())
    if any(type(token) is not int for token in ids) or set(ids) != set(range(len(ids))):
        raise ValueError(f"the ids of model.vocab must be the integers 0 to {len(ids) - 1}, each once")
    for token, string in enumerate(SPECIAL_TOKENS):
        if vocabulary.get(string) != token:
            raise ValueError(f"{string} must have id {token} in model.vocab; it has {vocabulary.get(string)}")
    return vocabulary


def _check_merges(merges: Any, vocabulary: dict[str, int]) -> None:
    """Merges come as "left right" (the released file) or as [left, right] (newer files)."""
    if not isinstance(merges, list):
        raise ValueError(f"model.merges must be a list; got {type(merges).__name__}")
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(side, str) for side in pair):
            raise ValueError(f"model.merges holds {merge!r:.80}, which is not a pair of tokens")
        for token in (*pair, "".join(pair)):
            if token not in vocabulary:
                raise ValueError(f"model.merges uses {token!r:.80}, which model.vocab lacks")


def _check_added_tokens(added: Any) -> None:
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise ValueError("added_tokens must be a list of objects")
    found = [(token.get("id"), token.get("content")) for token in added]
    if found != list(enumerate(SPECIAL_TOKENS)):
        raise ValueError(f"added_tokens must be {', '.join(SPECIAL_TOKENS)} with ids 0 to {len(SPECIAL_TOKENS) - 1}")


def _without_surrogates(text: str) -> str:
    """Replaces lone surrogates, which JSON can escape but UTF-8 cannot hold, by question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
