"""Trains the vocabulary this package ships: byte-level BPE in the released layout, from counted English words."""

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

# Bytes of the released alphabet: those that UTF-8 text has after the normaliser, which leaves no capitals, no control
# characters and no combining accents; lead bytes of private and unassigned planes are left out.
ALPHABET_BYTES = bytes(
    byte
    for first, last in (
        (0x20, 0x40), (0x5B, 0x7E), (0x80, 0xBF), (0xC2, 0xCB), (0xCE, 0xEA), (0xEF, 0xF0),
    )
    for byte in range(first, last + 1)
)  # fmt: skip

COUNT_UNIT = 50
"""The word list counts its rarest words 50; dividing by it keeps them all."""
MAX_REPEATS = 20_000
"""Words more frequent than this become single tokens anyway: repeating them more costs time and changes nothing."""
NARRATED_COUNT = 20_000
"""Least count of what the synthetic videos say: enough to make each word a single token."""
INNER_SHARE = 0.005
"""How often, of all its uses, a word follows a hyphen or another word rather than a space."""


def train_tokenizer(
    out: str | Path, words: Mapping[str, int] | None = None, vocabulary_size: int = VOCABULARY_SIZE
) -> None:
    """Trains a vocabulary of exactly `vocabulary_size` entries and writes it to the file `out`.

    `words` maps words to how often they occur; None takes the counts of English words in film subtitles that the
    package pyspellchecker brings, and what the synthetic videos say. Numbers and the pieces of web addresses are
    added. The same words give the same file. ValueError where they are too few to fill the vocabulary; ImportError,
    naming the extra to install, where a package is missing.
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
            f"the words give only {tokenizer.get_vocab_size()} tokens; a vocabulary of {vocabulary_size} needs more"
        )
    with replacing(out) as temporary:
        temporary.write_text(tokenizer.to_str(pretty=False), "utf-8")


def default_words() -> dict[str, int]:
    """Words of English film subtitles with their counts, from the MIT-licensed package pyspellchecker.

    What the synthetic videos say counts as common.
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
    """The character that stands for each byte of the alphabet in a byte-level vocabulary."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 256 + others.index(byte)) for byte in ALPHABET_BYTES]


def _training_text(words: Mapping[str, int]) -> Iterator[str]:
    """Each word after a space as often as it counts, and a few times within a longer one."""
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
