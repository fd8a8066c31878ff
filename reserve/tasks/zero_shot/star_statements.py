"""STAR's questions as statements. Its questions come from 20 templates, so rules cover them all.

How the paper worded the questions is not known (SPEC 10.10), so these statements are our choice. An option takes the
place of the MASK: "the person took<|MASK|> after they opened the door." with "The book".
"""

from __future__ import annotations

import re

from reserve.tasks.zero_shot.statements import MASK_TEXT, attach_mask, question_statement

_VERBS = (
    *("close", "consume", "drink", "eat", "grasp", "hold", "laugh", "leave", "lie", "look", "open", "play", "pour"),
    *("put", "reach", "read", "see", "sit", "smile", "snuggle", "stand", "take", "talk", "throw", "tidy", "turn"),
    *("walk", "wash", "watch", "work"),
)
_IRREGULAR = {
    "drink": "drank",
    "eat": "ate",
    "hold": "held",
    "leave": "left",
    "lie": "lay",
    "put": "put",
    "read": "read",
    "see": "saw",
    "sit": "sat",
    "stand": "stood",
    "take": "took",
    "throw": "threw",
    "tidy": "tidied",
}
_VERB = rf"(?P<verb>(?:{'|'.join(_VERBS)})(?: \w+)*?)"
_WHEN = r"(?:after|before|when|while) .+"

# Patterns of questions with the statement; {past} is the past of the verb.
_RULES: tuple[tuple[str, str], ...] = (
    # Interaction
    (r"which object was (?P<verb>.+) by the person(?P<rest>.*)", "{mask} was {verb} by the person{rest}"),
    (
        rf"what did the person do (?:with|to) (?P<object>the .+?)(?P<rest>(?: {_WHEN})?)",
        "the person {mask} {object}{rest}",
    ),
    (rf"what did the person do (?P<rest>{_WHEN})", "the person {mask} {rest}"),
    # Sequence
    (rf"which object did the person {_VERB} (?P<rest>{_WHEN})", "the person {past} {mask} {rest}"),
    (r"what happened (?P<order>after|before) the person (?P<rest>.+)", "the person {mask} {order} they {rest}"),
    # Prediction
    (r"what will the person do next with (?P<object>.+)", "next, the person will {mask} {object}"),
    (r"what will the person do next", "next, the person will {mask}"),
    (
        rf"which \w+ (?:would|will) the person {_VERB} next(?P<rest>.*)",
        "next, the person will {verb} {mask}{rest}",
    ),
    # Feasibility
    (
        r"which (?:other )?object is possible to be (?P<verb>.+?) by the person",
        "{mask} can be {verb} by the person",
    ),
    (
        rf"which (?:other )?object is possible to be (?P<verb>.+?) (?P<rest>{_WHEN})",
        "{mask} can be {verb} {rest}",
    ),
    (r"what else is the person able to do with (?P<object>.+)", "the person is also able to {mask} {object}"),
    (rf"what is the person able to do (?P<rest>{_WHEN})", "the person is able to {mask} {rest}"),
    (
        rf"which (?:other )?\w+ is the person able to {_VERB}(?P<rest>(?: (?:{_WHEN}|next .+))?)",
        "the person is able to {verb} {mask}{rest}",
    ),
)


def past(verb: str) -> str:
    """The past of a verb with its particle: "tidy up" is "tidied up"."""
    first, space, rest = verb.partition(" ")
    regular = f"{first}d" if first.endswith("e") else f"{first}ed"
    return _IRREGULAR.get(first, regular) + space + rest


def star_statement(question: str) -> str | None:
    """A question of STAR as a statement with a MASK. Other wordings go by the rules of `question_statement`; None for
    an empty question."""
    text = " ".join(question.lower().split()).rstrip(" ?.")
    for pattern, statement in _RULES:
        if match := re.fullmatch(pattern, text):
            words = match.groupdict(default="")
            return attach_mask(statement.format(mask=MASK_TEXT, past=past(words.get("verb", "")), **words) + ".")
    return question_statement(question)


def star_option(choice: str) -> str:
    """A choice without its full stop, since the statement has one."""
    return choice.strip().removesuffix(".")
