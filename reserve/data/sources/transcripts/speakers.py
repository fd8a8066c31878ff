"""Names of speakers and other signs of who speaks: they are shown, not said."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_CHANGE = re.compile(r"\s*(?:(?:>{2,}|»|[-–—‐‑‒―−]+(?!\d))\s*)+")
# A sentence, or what a dash, a note or >> separates, begins a turn within a line.
_TURN = re.compile(r"(?:[.!?…][\"”’')\]]*|[-–—‐‑‒―−]|>{2,}|[♩-♯])\s+")
_LABEL = re.compile(r"([^\s:：!?;,\"“”][^:：\n!?;\"“”]{0,47}?)\s?(?:(?::|：)(?=\s|$|[^\W\d_])|：)")
_ASIDE = re.compile(r"\([^()\n]{1,40}\)")
_LEADING_ASIDE = re.compile(r"\s*[(（]([^()（）\n]{1,40})[)）][:：]?(?=\s*\S)")
_NUMBERED = re.compile(r"(?:speaker|spk|sprecher(?:in)?|locuteur|hablante|orador|спикер)[ _-]?\d{1,3}", re.IGNORECASE)
_TITLE_WORDS = "dr mr mrs ms prof professor sir rev capt captain sgt sergeant lt col gen judge officer"
_TITLES = frozenset(_TITLE_WORDS.split())
_PARTICLE_WORDS = "of the and de da di do du del della van von der den la le el al bin ibn y e & #"
_PARTICLES = frozenset(_PARTICLE_WORDS.split())
# Words that open a sentence with a colon.
_OPENING_WORDS = (
    "note notes remember remember, warning caution attention important tip tips hint question answer example examples "
    "step part chapter lesson rule fact update reminder summary conclusion result results problem solution reason also "
    "so then first second third next finally ps p.s. nb n.b. http https re fyi spoiler disclaimer edit source today "
    "tomorrow yesterday again meaning namely translation subtitles goal plan task option"
)
_NOT_NAMES = frozenset(_OPENING_WORDS.split())
_MIN_ORDINARY = 3
_MIN_ORDINARY_SHARE = 0.2
_CAPITALS_FILE = 0.8
_MAX_ASIDE_WORDS = 4
_MAX_NAME_WORDS = 5


def blank_speakers(texts: Sequence[str]) -> list[str]:
    """`texts` of captions with blanks for dashes and >> that mark a change of speaker, and for names of speakers.

    A name is in capitals (unless the file is), numbered (`Speaker 1:`), has a title (`Dr. Smith:`) or an aside
    (`Ann (on phone):`), follows a sign of change, or opens several lines of the file. Other text before a colon is
    speech.
    """
    names = _Names(texts)
    return ["\n".join(_blank_line(line, before, names) for before, line in _lines(text)) for text in texts]


def _lines(text: str) -> list[tuple[str | None, str]]:
    """Each line with the one before it in its caption."""
    lines = text.split("\n")
    return list(zip([None, *lines], lines, strict=False))


class _Names:
    """What a file shows about its labels."""

    def __init__(self, texts: Sequence[str]) -> None:
        lines = [line for text in texts for line in text.split("\n")]
        sample = "".join(lines[:10_000])
        upper, lower = sum(map(str.isupper, sample)), sum(map(str.islower, sample))
        self.in_capitals = upper > _CAPITALS_FILE * (upper + lower)
        opening: Counter[str] = Counter()
        small: set[str] = set()
        for line in lines:
            small.update(word for word in line.split() if word.islower())
            change = _CHANGE.match(line)
            label = _LABEL.match(line, change.end() if change else _first_visible(line))
            if label and _looks_like_name(label[1]):
                opening[_key(label[1])] += 1
        # A word that the file also has in small letters, such as Will, may open sentences: it needs more evidence.
        ordinary = {name for name in opening if name.islower() or (len(name) > 1 and name.lower() in small)}
        often = max(_MIN_ORDINARY, _MIN_ORDINARY_SHARE * len(lines))
        names = {name for name, count in opening.items() if count >= (often if name in ordinary else 2)}
        if names:
            # A dialogue: who speaks once is named as the others are.
            names |= {name for name, count in opening.items() if name not in ordinary or count >= _MIN_ORDINARY}
        self.known = names

    def accepts(self, label: str, *, after_change: bool, inside: bool) -> bool:
        """Whether `label` names a speaker; `inside` a line, or in one that goes on with the sentence before it, only
        what is sure."""
        if _key(label) in self.known:
            return True
        bare = _ASIDE.sub("", label).strip()
        if _NUMBERED.fullmatch(bare):
            return True
        if not _looks_like_name(label) or label.islower():
            return False
        letters = [char for char in bare if char.isalpha()]
        capitals = len(letters) > 1 and not any(map(str.islower, letters)) and any(map(str.isupper, letters))
        if capitals and (after_change or not self.in_capitals):
            return not inside or after_change
        if inside or not any(map(str.isupper, letters)):
            return False
        titled = bare.split()[0].rstrip(".").lower() in _TITLES and len(bare.split()) > 1
        return after_change or titled or bare != label.strip()


def _key(label: str) -> str:
    """What two spellings of a label share: Ann, ANN and ANN (on phone)."""
    bare = " ".join(_ASIDE.sub("", label).split())
    return bare if bare.islower() else bare.upper()


def _looks_like_name(label: str) -> bool:
    """Whether a label has the form of a name: few words, each with a capital, in a script without capitals, or one
    word in small letters."""
    bare = _ASIDE.sub("", label)
    words = bare.split()
    if not 1 <= len(words) <= _MAX_NAME_WORDS or not any(map(str.isalpha, bare)):
        return False
    if words[0].lower().rstrip(".") in _NOT_NAMES or _NUMBERED.fullmatch(bare.strip()):
        return bool(_NUMBERED.fullmatch(bare.strip()))
    if len(words) == 1 and bare.islower():
        return True
    # A full stop ends a sentence unless it shortens a title or a name.
    if any((word.endswith(".") and len(word) > 5) or word.endswith(",") for word in words):
        return False
    return all(word.lower() in _PARTICLES or not word[0].islower() for word in words)


def _first_visible(line: str) -> int:
    return len(line) - len(line.lstrip())


def _blank_line(line: str, before: str | None, names: _Names) -> str:
    change = _CHANGE.match(line)
    place = change.end() if change else _first_visible(line)
    line = " " * place + line[place:]
    aside = _LEADING_ASIDE.match(line)
    if aside and len(aside[1].split()) <= _MAX_ASIDE_WORDS:
        line = " " * aside.end() + line[aside.end() :]
        place = aside.end() + _first_visible(line[aside.end() :])
    goes_on = before is not None and bool(before.strip()) and before.rstrip()[-1] not in ".!?…\"”')-–—♪:]"
    label = _LABEL.match(line, place)
    if label and names.accepts(label[1], after_change=change is not None, inside=goes_on):
        line = " " * label.end() + line[label.end() :]
        place = label.end()
    return _blank_turns(line, place, names)


def _blank_turns(line: str, place: int, names: _Names) -> str:
    """`line` with blanks for labels and dashes that begin a turn after `place`."""
    while turn := _TURN.search(line, place):
        place = turn.end()
        change = _CHANGE.match(line, place)
        start = change.end() if change else place
        after_change = change is not None or turn[0].strip()[0] in "-–—‐‑‒―−>"
        label = _LABEL.match(line, start)
        if label and names.accepts(label[1], after_change=after_change, inside=not _is_capital(label[1])):
            start = label.end()
        line = line[:place] + " " * (start - place) + line[start:]
        place = max(start, place)
    return line


def _is_capital(label: str) -> bool:
    return label.isupper()
