"""The text of a file whose encoding nobody states: UTF-8 above all, other code pages only on clear evidence."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from reserve.data.sources.mojibake import encoded_twice, is_garbled, looks_encoded_twice
from reserve.errors import BadInput

DAMAGED = "\ufffd"
"""Stands for bytes that are not text. Words with it are dropped later, the rest of the file is kept."""
MAX_DAMAGED_SHARE = 0.01
"""Share of characters that may be damaged. A flipped bit or a cut download has a few; text in a wrong encoding has
more."""

_SAMPLE = 2**14
"""Bytes or characters that an encoding is judged by."""
# chardet's first guess is right for about 24 of 25 short subtitles. Nearly all of its errors have little confidence or
# a second guess close behind, and nearly all remaining ones have few letters to go by.
_CLEAR_LEAD = 1.1
_CLEAR_LEAD_OF_FEW = 1.3
_FEW = 20
_MIN_CONFIDENCE = 0.02
_UNANIMOUS = 3
"""Code pages that make up for little confidence by reading the same, as most western ones do the accent of café."""
_MIN_MULTIBYTE_CONFIDENCE = 0.2
_MULTIBYTE = ("cp932", "shift_jis", "euc_", "euc-", "gb", "big5", "cp949")
_CODE_PAGES = (
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp850", "cp852", "cp866"),
    *("iso8859-2", "iso8859-5", "iso8859-7", "iso8859-15", "koi8-r", "koi8-u", "mac-roman"),
    *("cp932", "euc-jp", "gb18030", "big5", "cp949"),
)
# Longest first: the mark of UTF-16 begins that of UTF-32.
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
# Common words without accents, in languages of western Europe and of central Europe but not in both. Where text has few
# accented letters, they say more about its code page than the letters do.
_WESTERN_WORDS = (
    "the of and you that with they this have what your was are for "  # English
    "les est que qui dans pour vous nous des une avec mais elle pas "  # French
    "los las por para con pero como del una esta todo "  # Spanish
    "com uma mas dos das isso ele ela "  # Portuguese
    "der die das und ist nicht ich ein mit auf wir sie auch "  # German
    "che non per sono della questo "  # Italian
    "het een niet dat zijn "  # Dutch
    "och att det jag inte som den og jeg ikke har"  # Swedish, Danish, Norwegian
)
_CENTRAL_WORDS = (
    "nie jest jak ale czy dla jsem jsi jste co pro kdy kde "  # Polish, Czech, Slovak
    "hogy nem egy az hol csak nu este pentru sunt care mai "  # Hungarian, Romanian
    "nije sam kao ali bio sem kot pri ni"  # Croatian, Slovene
)
_WESTERN, _CENTRAL = frozenset(_WESTERN_WORDS.split()), frozenset(_CENTRAL_WORDS.split())
_MIN_WESTERN = 0.1
_WESTERN_LEAD = 4
_DASH_IN_WORD = re.compile(r"\w—\w")
_NOT_WESTERN = re.compile("[ŠšŽžŸƒˆ˜ðþÐÞ]|[^\\W\\d_][‘“‹«]|(?<!\\w)[^\\W\\d_A-Za-zÀàáéèêíóúýÉÈ](?!\\w)")
"""Letters that western languages hardly have, opening quotes after a letter, and most accented letters by
themselves: signs that Windows-1252 is not the code page."""


@dataclass(frozen=True, slots=True)
class DecodedText:
    """Text of a file, with DAMAGED for what could not be decoded, and warnings about how it was read."""

    text: str
    warnings: list[str] = field(default_factory=list)


def decode_text(content: bytes) -> DecodedText:
    """The text of `content`.

    Unicode with a byte order mark, UTF-16 and UTF-32 without one, UTF-8, also with few bad bytes; otherwise a code page
    if it is beyond doubt. UTF-8 that was encoded twice is repaired if all of the text shows it. Raises BadInput for
    binary data and for text whose encoding is doubtful: a wrong guess would give wrong words.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _checked(content[len(mark) :].decode(encoding, errors="replace"))
    if b"\0" in content:
        return _with_zeros(content)
    if len(content) - len(content.translate(None, _CONTROL)) > MAX_DAMAGED_SHARE * len(content):
        raise BadInput("binary data, not text")
    if _is_utf8(content):
        text = content.decode("utf-8", errors="replace")
        if content.isascii():
            return DecodedText(text)
        if repaired := encoded_twice(text):
            return DecodedText(repaired, ["its text was encoded in UTF-8 twice; that was undone"])
        if looks_encoded_twice(text):
            raise BadInput("its text looks like UTF-8 that was read in another encoding and saved again")
        return _checked(text)
    return _in_code_page(content)


def _is_utf8(content: bytes) -> bool:
    """Whether `content` is UTF-8, perhaps damaged. In code pages, hardly any two bytes are valid UTF-8 by chance."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return True
    else:
        return True
    text = content.decode("utf-8", errors="replace")
    damaged = text.count(DAMAGED)
    # Latin-1 decodes as fast as memory is read, so this counts the characters beyond ASCII without a loop.
    others = sum(map(len, re.findall(r"[^\x00-\x7f\ufffd]+", text)))
    return others >= damaged and not is_garbled(_around_first(content).decode("utf-8", errors="ignore"))


def _with_zeros(content: bytes) -> DecodedText:
    """Text with zero bytes: UTF-16 or UTF-32 without a mark, or a file with a hole in it."""
    # A download into a file of the final size that stops early leaves zeros at the end.
    filled = content.rstrip(b"\0")
    holes = filled.count(0)
    if not filled:
        raise BadInput("nothing but zero bytes")
    # The digits and line ends of any transcript are ASCII, so their other bytes are zero.
    if 4 * holes > len(filled):
        for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
            sample = content[:_SAMPLE].decode(encoding, errors="replace")
            if "\0" not in sample and sample.count(DAMAGED) <= 1 and not is_garbled(sample):
                return _checked(content.decode(encoding, errors="replace").replace("\0", DAMAGED))
        raise BadInput("binary data, not text")
    if holes > MAX_DAMAGED_SHARE * len(filled):
        raise BadInput("binary data, not text")
    decoded = decode_text(filled.replace(b"\0", b""))
    zeros = len(content) - len(filled) + holes
    return DecodedText(decoded.text, [*decoded.warnings, f"{zeros} zero bytes in it; they were dropped"])


def _checked(text: str) -> DecodedText:
    """`text` with a warning if some of it is damaged. Raises BadInput if much is."""
    damaged = text.count(DAMAGED)
    if not damaged:
        return DecodedText(text)
    if damaged > max(1, MAX_DAMAGED_SHARE * len(text)):
        raise BadInput(f"{damaged} of its {len(text)} characters are damaged")
    return DecodedText(text, [f"{damaged} damaged characters in it; the words with them are dropped"])


def _around_first(content: bytes) -> bytes:
    """A sample of `content` that begins shortly before its first byte beyond ASCII."""
    match = _NOT_ASCII.search(content)
    start = max(match.start() - 1024, 0) if match else 0
    # Begin after a line end, so as not to cut a character.
    start = content.find(b"\n", start) + 1 if start else 0
    return content[start : start + _SAMPLE]


def _in_code_page(content: bytes) -> DecodedText:
    """The text of `content`, which is not UTF-8, in the one code page that fits it."""
    encoding = _detect(_around_first(content))
    if encoding is not None:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            pass
        else:
            if not looks_encoded_twice(text):
                return DecodedText(text, [f"read in the encoding {encoding}"])
    damaged = content.decode("utf-8", errors="replace")
    if damaged.count(DAMAGED) > min(10, MAX_DAMAGED_SHARE * len(damaged)):
        raise BadInput("its encoding is not UTF-8 and cannot be told with certainty; save it in UTF-8")
    return _checked(damaged)


def _detect(sample: bytes) -> str | None:
    """The code page of a sample, or None if several give different texts that are about as likely."""
    import chardet

    found = chardet.detect_all(
        sample, include_encodings=_CODE_PAGES, ignore_threshold=True, prefer_superset=False, compat_names=False
    )
    readings: list[tuple[str, float, str]] = []
    for guess in found:
        encoding = guess["encoding"]
        text = sample.decode(encoding, errors="replace") if encoding else DAMAGED
        # The sample may end inside a character.
        if encoding and DAMAGED not in text[:-1] and not is_garbled(text):
            readings.append((text, guess["confidence"], encoding))
    if not readings:
        return None
    western = next((text for text, _, encoding in readings if encoding == "cp1252"), None)
    if western is not None and _is_western(western):
        return "cp1252"
    best, confidence, encoding = readings[0]
    second = next((other for text, other, _ in readings if text != best), 0.0)
    letters = sum(char.isalpha() and char >= "\x80" for char in best)
    lead = _CLEAR_LEAD if letters >= _FEW else _CLEAR_LEAD_OF_FEW
    least = _MIN_MULTIBYTE_CONFIDENCE if encoding.startswith(_MULTIBYTE) else _MIN_CONFIDENCE
    if confidence >= max(least, lead * second) or (not second and len(readings) >= _UNANIMOUS):
        return encoding
    return None


def _is_western(text: str) -> bool:
    """Whether `text`, read as Windows-1252, is in a language for which that is the usual code page."""
    words = [word.lower() for word in re.findall(r"[^\W\d_]+", text)]
    western = [word for word in words if word in _WESTERN]
    central = sum(word in _CENTRAL for word in words)
    if len(western) < max(_MIN_WESTERN * len(words), _WESTERN_LEAD * central):
        return False
    if _NOT_WESTERN.search(text):
        return False
    # In Mac OS Roman, the byte of a dash is ó, which English does not have.
    return "the" in western or (len(set(western)) > 1 and not _DASH_IN_WORD.search(text))
