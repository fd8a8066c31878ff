"""From questions to statements with a MASK. The rules are our own, since the paper's are not known (SPEC 10.13).

The released MSR-VTT script had a language model write the statements, and its output is not published. Statements made
elsewhere can be read from a file instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from reserve.errors import BadInput
from reserve.tasks.data_folder import Record, read_json, read_json_lines

MASK_TEXT = "<|MASK|>"
BLANK = "_"
_BE = r"(?P<be>is|are|was|were|am)"
_PREPOSITIONS = frozenset(
    (
        *("about", "against", "around", "at", "by", "down", "during", "for", "from", "in", "inside", "into", "like"),
        *("near", "of", "off", "on", "onto", "out", "over", "through", "to", "towards", "under", "up", "with"),
    )
)
_PREPOSITION = f"(?:{'|'.join(sorted(_PREPOSITIONS))})"
_ADJECTIVE = r"(?:young|old|little|small|big|female|male|black|white|asian|cartoon|animated|sports)"
_SUBJECT = (
    rf"(?:(?:a|an|the|some|two|three|several|many) (?:{_ADJECTIVE} )*(?!{_ADJECTIVE}\b)[a-z]+"
    "|people|someone|he|she|they)"
)
_NO_VERB = rf"(?!{_PREPOSITION}\b|[a-z]+ing\b|and\b|who\b)"
_NO_SUBJECT = r"(?!does\b|do\b|did\b|is\b|are\b|was\b|were\b|am\b|has been\b)"


def attach_mask(text: str) -> str:
    """Removes the space before a MASK, which the vocabulary would make a token of its own (SPEC 10.5)."""
    return text.replace(f" {MASK_TEXT}", MASK_TEXT)


def filled_blank(text: str) -> str | None:
    """A text with exactly one blank "_", or one MASK, as a statement with a MASK; None for any other."""
    statement = text.replace(BLANK, MASK_TEXT)
    return attach_mask(statement) if statement.count(MASK_TEXT) == 1 else None


def read_statements(path: Path) -> dict[str, str]:
    """Statements by question id, from JSON {id: text}, or JSON or JSON lines of {"id": …, "statement": …}.

    Raises BadInput naming the file and what is wrong.
    """
    if path.suffix == ".jsonl":
        records = read_json_lines(path)
    else:
        content = read_json(path)
        if isinstance(content, dict):
            return {key: Record(content, str(path)).text(key) for key in content}
        if not isinstance(content, list):
            raise BadInput(f"{path} must hold a map of ids to statements, or a list; got {type(content).__name__}")
        records = [Record(values, f"{path}, entry {number}") for number, values in enumerate(content, 1)]
    return {str(record.whole("id")): record.text("statement") for record in records}


def question_statement(question: str) -> str | None:
    """A question as a statement with one MASK, by rules on its wording; None for an empty question.

        >>> question_statement("what is a man doing?")
        'a man is<|MASK|>.'

    A question that no rule matches keeps its wording, with the MASK as its answer: "which man sings?<|MASK|>."
    """
    text = _plain_wording(question)
    if not text or MASK_TEXT.lower() in text:
        return None
    return matched_statement(question) or f"{text}?{MASK_TEXT}."


def matched_statement(question: str) -> str | None:
    """A question as a statement with one MASK, None if no rule matches its wording."""
    text = _plain_wording(question)
    for pattern, write in _RULES:
        if match := re.fullmatch(pattern, text):
            return attach_mask(f"{write(match)}.")
    return None


def _plain_wording(question: str) -> str:
    return " ".join(question.lower().split()).rstrip(" ?.")


def _after_verb(match: re.Match[str]) -> str:
    """The MASK as the object of a verb: after it, or at the end where that is a preposition."""
    subject, be, verb, rest = match["subject"], match["be"], match["verb"], match["rest"].strip()
    if not rest:
        return f"{subject} {be} {verb} {MASK_TEXT}"
    if rest.split()[-1] in _PREPOSITIONS:
        return f"{subject} {be} {verb} {rest} {MASK_TEXT}"
    return f"{subject} {be} {verb} {MASK_TEXT} {rest}"


def _place(match: re.Match[str]) -> str:
    return f"{match['subject']} {match['be']} {match['rest'].strip()} in {MASK_TEXT}".replace("  ", " ")


_RULES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    # what is a man doing
    (rf"what {_BE} (?P<subject>.+) doing", lambda m: f"{m['subject']} {m['be']} {MASK_TEXT}"),
    # who is singing, what is playing: the MASK is the subject
    (rf"(?:what|who) {_BE} (?P<rest>[a-z]+ing\b.*)", lambda m: f"{MASK_TEXT} {m['be']} {m['rest']}"),
    # what is a woman playing on stage, who is a man talking to
    (rf"(?:what|who) {_BE} (?P<subject>.+?) (?P<verb>[a-z]{{2,}}ing)\b(?P<rest>.*)", _after_verb),
    # what does a man do, what did the girl eat, what does a chef cut a pepper in. "does" stays, so that no verb needs
    # to be conjugated; longer subjects cannot be told from what follows them
    (r"what (?P<do>does|do|did) (?P<subject>.+) do", lambda m: f"{m['subject']} {m['do']} {MASK_TEXT}"),
    (
        rf"what (?P<be>does|do|did) (?P<subject>{_SUBJECT}) (?P<verb>{_NO_VERB}[a-z]{{2,}})(?P<rest>(?: .*)?)",
        _after_verb,
    ),
    # what color is the car, what kind of car is shown
    (rf"what colou?r {_BE} (?P<subject>.+)", lambda m: f"the color of {m['subject']} {m['be']} {MASK_TEXT}"),
    (r"what (?P<what>kind|type|sort) of (?P<rest>.+)", lambda m: f"{MASK_TEXT} {m['rest']}"),
    # how many people are dancing
    (r"how many (?P<rest>.+)", lambda m: f"{MASK_TEXT} {m['rest']}"),
    # where is a man singing
    (rf"where {_BE} (?P<subject>.+?)(?P<rest>(?: [a-z]{{2,}}ing\b.*)?)", _place),
    # who sings, what plays: any other verb of which the MASK is the subject
    (rf"who (?P<rest>{_BE} .+)", lambda m: f"{MASK_TEXT} {m['rest']}"),
    (rf"(?:what|who) {_NO_SUBJECT}(?P<rest>.+)", lambda m: f"{MASK_TEXT} {m['rest']}"),
)
