"""VCR's texts as the model reads them: names for objects, and tokens joined to a sentence (SPEC 10.7)."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from reserve.tasks.vcr.annotations import Question, Tokens

ANSWER_PREFIX, RATIONALE_PREFIX = "answer: ", "rationale: "
_NAMED_OBJECTS = 2
"""Objects of a list that are named; further ones are left out."""

# After detokenisation, in this order.
_CORRECTIONS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r" n't", "n't"),
        (r"n' t", "n't"),
        (r" ([',.?])", r"\1"),
        (r"\b' s", "'s"),
        (r"-;", " "),
        (r"\s+", " "),
    )
)


def object_names(classes: Sequence[str]) -> list[str]:
    """What each object is called: "the dog" if it is the only one of its class, else "Person 2", counted by class."""
    totals, seen = Counter(classes), Counter[str]()
    names = []
    for name in classes:
        seen[name] += 1
        names.append(f"the {name}" if totals[name] == 1 else f"{name.capitalize()} {seen[name]}")
    return names


def sentence(tokens: Tokens, names: Sequence[str]) -> str:
    """A text with its objects named, as one string.

    Colons become spaces, except in a token "Answer:". A list of objects names the first two. The tokens are joined by
    Moses' rules for English (sacremoses), then corrected as the reference does.
    """
    words = []
    for token in tokens:
        if not isinstance(token, str):
            words.append(" and ".join(names[index] for index in token[:_NAMED_OBJECTS]))
        else:
            words.append(token if token == "Answer:" else token.replace(":", " "))
    text = _detokenizer().detokenize(words)
    for pattern, replacement in _CORRECTIONS:
        text = pattern.sub(replacement, text)
    return text.strip()


def rationale_query(question: str, answer: str) -> str:
    """What a rationale is asked for: the question and an answer to it."""
    return f"{question} Answer: {answer}"


def mentions_a_side(question: Question) -> bool:
    """Whether "left" or "right" occurs in the question or a choice, also within a word. Such pictures stay as they
    are."""
    words = [token for text in question.texts for token in text if isinstance(token, str)]
    return any(side in word for word in words for side in ("left", "right"))


@functools.cache
def _detokenizer() -> Any:
    try:
        from sacremoses import MosesDetokenizer
    except ImportError as error:
        raise ImportError(
            "VCR's texts need sacremoses: pip install 'merlot-reserve[tasks]'", name="sacremoses"
        ) from error
    return MosesDetokenizer(lang="en")
