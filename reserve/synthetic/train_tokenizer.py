"""Trains the shipped vocabulary: byte-level BPE in the released layout, from English word counts."""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

from reserve.batch.vocabulary import SPECIAL_TOKENS, VOCABULARY_SIZE
from reserve.data.tokenizer import LAYOUT
from reserve.fs import replacing
from reserve.synthetic import narration

# The released alphabet: the bytes of normalised UTF-8 text, which has no capitals, control characters or combining
# accents, without the lead bytes of private and unassigned planes.
ALPHABET_BYTES = bytes(
    byte
    for first, last in (
        (0x20, 0x40), (0x5B, 0x7E), (0x80, 0xBF), (0xC2, 0xCB), (0xCE, 0xEA), (0xEF, 0xF0),
    )
    for byte in range(first, last + 1)
)  # fmt: skip

COUNT_UNIT = 50
"""The count of the rarest words in the list: dividing by it keeps every word."""
MAX_REPEATS = 20_000
"""A cap on repetitions. More frequent words become single tokens anyway, so further copies only cost time."""
NARRATED_COUNT = 20_000
"""Minimum count of the synthetic narration's words: enough to make each a single token."""
INNER_SHARE = 0.005
"""The share of a word's occurrences that follow a hyphen rather than a space."""


def train_tokenizer(
    out: str | Path, words: Mapping[str, int] | None = None, vocabulary_size: int = VOCABULARY_SIZE
) -> None:
    """Trains a vocabulary of exactly `vocabulary_size` entries and writes it to the file `out`.

    `words` maps words to counts. By default these are pyspellchecker's counts of English words in film subtitles and
    the words of the synthetic narration. Numbers and parts of web addresses are added. The same words give the same
    file. Raises ValueError if the words cannot fill the vocabulary, ImportError naming the extra to install if a
    package is missing, and OSError if `out` cannot be written.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    except ImportError as error:
        raise ImportError(
            "training a vocabulary needs the tokenizers package: pip install 'merlot-reserve[train]'", name="tokenizers"
        ) from error

    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Training takes minutes: fail first.
    if out.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(out))
    options = {part: {k: v for k, v in values.items() if k != "type"} for part, values in LAYOUT.items()}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.BertNormalizer(**options["normalizer"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**options["pre_tokenizer"])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = _byte_characters()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        min_frequency=1,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_text(default_words() if words is None else words), trainer)
    if tokenizer.get_vocab_size() != vocabulary_size:
        raise ValueError(
            f"the words yield only {tokenizer.get_vocab_size()} tokens; the vocabulary must have {vocabulary_size}"
        )
    with replacing(out) as temporary:
        temporary.write_text(tokenizer.to_str(pretty=False), "utf-8")


def default_words() -> dict[str, int]:
    """Word counts of English film subtitles, from the MIT-licensed package pyspellchecker.

    The words of the synthetic narration count at least NARRATED_COUNT.
    """
    try:
        source = files("spellchecker").joinpath("resources/en.json.gz")
    except ImportError as error:
        raise ImportError(
            "training the default vocabulary needs the word counts of pyspellchecker: "
            "pip install 'merlot-reserve[vocabulary]'",
            name="spellchecker",
        ) from error
    words: dict[str, int] = json.loads(gzip.decompress(source.read_bytes()))
    return words | {word: max(words.get(word, 0), NARRATED_COUNT) for word in narration.vocabulary()}


def _byte_characters() -> list[str]:
    """The character that represents each byte of the alphabet in a byte-level vocabulary."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 256 + others.index(byte)) for byte in ALPHABET_BYTES]


def _training_text(words: Mapping[str, int]) -> Iterator[str]:
    """Each word after a space, in proportion to its count, and a few times after a hyphen."""
    for word, count in sorted(words.items()):
        repeats = min(-(-count // COUNT_UNIT), MAX_REPEATS)
        yield f" {word}" * repeats
        yield f"-{word}" * int(repeats * INNER_SHARE)
    for number in range(1000):
        yield f" {number}" * (200_000 // (number + 10))
        yield f",{number:03d}" * 20
    for year in range(1900, 2031):
        yield f" {year}" * 200
    for piece in ("http", "https", "www", "com", "...", "://", "--", "?!"):
        yield f"\n{piece}" * 2000
