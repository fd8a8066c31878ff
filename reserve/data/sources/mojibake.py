"""Signs that text was decoded in the wrong encoding."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

MAX_STRANGE = 0.02
"""Share of the characters beyond ASCII that may look strange: foreign names and typing errors do."""
_MIN_SCRIPT = 0.2
"""Least share of letters in the main script beyond Latin. An accented letter read in a Cyrillic code page is one
Cyrillic letter among many Latin ones."""
_LONGEST_ACCENTED_RUN = 5
"""Accented Latin letters in a row, as in ışığı. A Cyrillic word read in a western code page has nothing but these."""
_SCRIPTS = (
    ("latin", 0x0000, 0x024F),
    ("greek", 0x0370, 0x03FF),
    ("cyrillic", 0x0400, 0x052F),
    ("hebrew", 0x0590, 0x05FF),
    ("arabic", 0x0600, 0x06FF),
    ("latin", 0x1E00, 0x1EFF),
    ("greek", 0x1F00, 0x1FFF),
    ("ideographs", 0x3005, 0x30FF),
    ("ideographs", 0x4E00, 0x9FFF),
    ("hangul", 0xAC00, 0xD7AF),
)
_INSIDE_WORDS = frozenset("’—·\xad`´・ー\ufffd")
_OPENING = frozenset("‚„¡¿")
_BEFORE_NUMBERS = frozenset("£€¥¢§©®™½¼¾²³×°")
_OTHERS = frozenset("‘“”«»–…\xa0‹›№ªº♪♫、。，．！？：；「」『』（）【】〜～《》‐―")
_SYMBOLS = _OTHERS | _INSIDE_WORDS | _OPENING | _BEFORE_NUMBERS

# Windows-1252 as browsers read it: the five bytes it leaves out are control characters.
_SLOPPY_1252 = {ord(bytes([byte]).decode("cp1252", errors="ignore") or chr(byte)): byte for byte in range(0x80, 0xA0)}
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_SAMPLE = 2**14
_TWICE = re.compile(r"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
# Code pages in which UTF-8 was read before it was saved again, and how many characters must prove it.
_READ_IN = (("cp1251", 4), ("cp1250", 4), ("mac-roman", 4), ("cp437", 4), ("gb18030", 8), ("cp932", 8), ("cp949", 8))


@lru_cache(4096)
def _script(char: str) -> str:
    code = ord(char)
    return next((name for name, first, last in _SCRIPTS if first <= code <= last), "other")


def is_garbled(text: str) -> bool:
    """Whether `text` can hardly be what its author wrote.

    Counts what code pages give that are taken for another: control characters, capitals after small letters, symbols
    and letters of several scripts within a word, long runs of accented letters.
    """
    strange, letters, run = 0, 0, 0
    counts: dict[str, int] = {}
    for before, char, after in zip(" " + text, text, text[1:] + " ", strict=False):
        beyond = char >= "\x80"
        if not char.isalpha():
            run = 0
            if beyond:
                category = unicodedata.category(char)
                if category in ("Cc", "Co", "Cn", "Cs"):
                    return True
                letters += category[0] == "M"
                strange += category[0] != "M" and _is_strange_symbol(before, char, after)
            continue
        script = _script(char)
        counts[script] = counts.get(script, 0) + 1
        letters += beyond
        run = run + 1 if script == "latin" and beyond else 0
        strange += run > _LONGEST_ACCENTED_RUN
        if beyond or before >= "\x80":
            strange += _is_strange_letter(before, char, after)
    return strange + _out_of_place(counts) > MAX_STRANGE * letters


def _is_strange_symbol(before: str, char: str, after: str) -> bool:
    if char not in _SYMBOLS or (char in _OPENING and before.isalnum()):
        return True
    if char in _BEFORE_NUMBERS and after.isalpha():
        return True
    return char not in _INSIDE_WORDS and before.islower() and after.islower()


def _is_strange_letter(before: str, char: str, after: str) -> bool:
    if char in "ªº" or not (char.isupper() or char.islower() or before.isalpha()):
        return False
    if before.isdecimal() or after.isdecimal():
        return True
    if not before.isalpha():
        return False
    # Japanese writes Latin words without spaces around them.
    mixed = {_script(before), _script(char)}
    if len(mixed) > 1 and mixed != {"latin", "ideographs"}:
        return True
    return char.isupper() and (before.islower() or after.islower())


def _out_of_place(counts: dict[str, int]) -> int:
    """Letters of scripts other than Latin that do not belong to the text's main one."""
    others = {script: count for script, count in counts.items() if script != "latin"}
    if not others:
        return 0
    main = max(others, key=others.__getitem__)
    # An ideograph or a syllable of Hangul stands for about three letters.
    weight = 3 if main in ("ideographs", "hangul") else 1
    place = weight * others[main] >= _MIN_SCRIPT * sum(counts.values())
    return sum(others.values()) - (others[main] if place else 0)


def _bytes_of_1252(text: str) -> str:
    """`text` with each character replaced by the one of its byte in Windows-1252."""
    return text.translate(_SLOPPY_1252)


def encoded_twice(text: str) -> str | None:
    """What `text` was before UTF-8 was read in a code page and encoded again; None unless all of it says so."""
    for encoding, needed in (("cp1252", 1), *_READ_IN):
        # The end of a sample can lie within a character.
        sample = _decoded_again(_sample(text), encoding, errors="ignore")
        if sample is None or is_garbled(sample):
            continue
        once = _decoded_again(text, encoding, errors="strict")
        if once is not None and sum(map(len, _BEYOND_ASCII.findall(once))) >= needed:
            return once.replace("\ufeff", "")
    return None


def _sample(text: str) -> str:
    """The beginning of what is beyond ASCII in `text`."""
    match = _BEYOND_ASCII.search(text)
    return text[match.start() : match.start() + _SAMPLE] if match else ""


def _decoded_again(text: str, encoding: str, *, errors: str) -> str | None:
    try:
        content = _bytes_of_1252(text).encode("latin-1") if encoding == "cp1252" else text.encode(encoding)
        once = content.decode("utf-8", errors)
    except UnicodeError:
        return None
    # What is ignored is at most one character.
    return once if len(content) - len(once.encode()) < 4 else None


def looks_encoded_twice(text: str) -> bool:
    """Whether much of `text` beyond ASCII is UTF-8 read as Windows-1252, such as â€™ for an apostrophe."""
    sample = _sample(text)
    found = _TWICE.findall(_bytes_of_1252(sample))
    beyond = sum(map(len, _BEYOND_ASCII.findall(sample)))
    return len(found) >= 2 and 2 * sum(map(len, found)) > beyond
