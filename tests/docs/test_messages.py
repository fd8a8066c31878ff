"""The messages that pages quote are those that the code gives.

Quotes are the texts in backticks in the first column of tables headed "message", "reason", "refused with" or
"symptom". Both sides have variable parts: values in an f-string, and in a quote "…", words in capitals and numbers.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.docs.pages import ROOT

VALUE = "\0"
"""Stands for a value in a message's source."""
HEADINGS = {"message", "reason", "refused with", "symptom"}
FEWEST_WORDS = {"symptom": 3}
"""Shorter texts in backticks are names rather than messages, in tables that mix both."""
LEAST_SHARE = 0.4
"""Of a quote's letters, how many the source's own words must account for."""


def source_text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return re.sub(r"%[sdrg]", VALUE, node.value) if isinstance(node.value, str) else VALUE
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else VALUE for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return source_text(node.left) + source_text(node.right)
    return VALUE


@cache
def messages() -> tuple[str, ...]:
    """Every text in the sources that could be a message, docstrings excluded, without its values."""
    files = [*(ROOT / "reserve").rglob("*.py"), *(ROOT / "kernels").rglob("*.py"), ROOT / "setup.py"]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    texts = [
        source_text(node)
        for node in nodes
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp) and id(node) not in docstrings
    ]
    shell = re.findall(r'echo "(.+?)"', (ROOT / "Makefile").read_text("utf-8"))
    texts += [re.sub(r"\$+\((?:[^()]|\([^()]*\))*\)", VALUE, text) for text in shell]
    return tuple({text for text in texts if len(re.findall(r"[A-Za-z]+", text)) > 1})


def quotes(page: str) -> Iterator[str]:
    heading = None
    for line in page.splitlines():
        first = re.split(r"(?<!\\)\|", line)[1].strip() if line.startswith("|") else None
        if first is None or heading is None:
            heading = first
        elif heading in HEADINGS:
            for text in re.findall(r"`([^`]+)`", first):
                if len(text.split()) >= FEWEST_WORDS.get(heading, 1):
                    yield text


def is_given(quote: str, texts: tuple[str, ...]) -> bool:
    """Whether one of the texts holds all fixed parts of the quote in their order, or can read as the quote.

    A value can be empty, such as what is added to an argument's name.
    """
    fixed = [re.escape(part.strip(" :;,()")) for part in _fixed_parts(quote)]
    parts = re.compile(".*".join(filter(None, fixed)), re.DOTALL)
    return any(parts.search(_fixed_text(text)) or _reads_as(text, quote) for text in texts)


@cache
def _fixed_text(text: str) -> str:
    return re.sub(" +", " ", " ".join(_fixed_parts(text)))


@cache
def _fixed_parts(text: str) -> tuple[str, ...]:
    return tuple(re.split(rf"…|{VALUE}|\b[A-Z]+\b|\d[\d,.]*", text))


def _reads_as(text: str, quote: str) -> bool:
    own = text.removeprefix(f"{VALUE}: ").split(VALUE)
    if not all(part in quote for part in own):  # true of nearly all pairs, and compiling a pattern takes long
        return False
    share = sum(map(len, own)) / max(1, sum(map(len, _fixed_parts(quote))))
    # Quotes may leave out the file's name that a message begins with.
    return share >= LEAST_SHARE and re.fullmatch(f"(?:.*: )?{'.*'.join(map(re.escape, own))}", quote) is not None


@pytest.mark.parametrize(("page", "least"), [("asking.md", 4), ("data.md", 31), ("troubleshooting.md", 31)])
def test_quoted_messages_exist(page, least):
    found = list(quotes((ROOT / "docs" / page).read_text("utf-8")))
    assert len(found) >= least
    assert [quote for quote in found if not is_given(quote, messages())] == []


@pytest.mark.parametrize(
    ("quote", "expected"),
    [
        ("too short: T s with the first word at U s", True),
        ("RUN has no checkpoint yet", True),
        ("…; name one", True),
        ("RUN has no checkpoint", True),
        ("RUN lacks a checkpoint", False),
        ("too long: T s", False),
        ("RUN has no checkpoint yet, sorry", False),
        ("cu_seqlens must go from 0 to N", True),
        ("cu_seqlens_k must go from 0 to N", True),
        ("max_seqlen must go from 0 to N", False),
    ],
)
def test_a_quote_is_compared_with_the_words_of_the_source(quote, expected):
    texts = (f"too short: {VALUE} s with the first word at {VALUE} s; more", f"{VALUE} has no checkpoint yet; name one")
    texts += (f"cu_seqlens{VALUE} must go from 0 to {VALUE}",)
    assert is_given(quote, texts) == expected


def test_only_marked_columns_are_quotes():
    page = "| message | do |\n| --- | --- |\n| `a b`, `c` | `d` |\n\n| key | |\n| --- | --- |\n| `e` | |\n"
    assert list(quotes(page)) == ["a b", "c"]
    assert list(quotes(page.replace("message", "symptom"))) == []
