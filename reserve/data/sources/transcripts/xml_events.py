"""Reads XML of unknown origin as a stream: no entities, no document in memory, bounded depth and size."""

from __future__ import annotations

import xml.parsers.expat
from collections.abc import Callable

from reserve.data.sources.transcripts.limits import MAX_LINE, MAX_TAGS
from reserve.errors import BadInput

_MAX_DEPTH = 64


def read_xml(
    text: str,
    start: Callable[[str, dict[str, str]], None],
    end: Callable[[str], None],
    data: Callable[[str], None],
) -> None:
    """Calls `start(name, attributes)`, `end(name)` and `data(text)` in the order of the document.

    Names come without prefixes, since files disagree on namespaces. A document type is refused: it can define entities
    that unfold to gigabytes or name other files.
    """
    if text.count("<") > MAX_TAGS:
        raise BadInput(f"more than {MAX_TAGS} XML tags")
    longest = max(map(len, text.split("<")))
    if longest > MAX_LINE:
        raise BadInput(f"an XML tag or text of {longest} characters; a transcript has at most {MAX_LINE}")
    around: list[str] = []

    def opened(name: str, attributes: dict[str, str]) -> None:
        around.append(name)
        if len(around) > _MAX_DEPTH:
            raise BadInput("its XML is nested too deeply for a transcript")
        start(_local(name), {_local(key): value for key, value in attributes.items()})

    def closed(name: str) -> None:
        around.pop()
        end(_local(name))

    def refuse(*_: object) -> None:
        raise BadInput("its XML has a document type, which may define entities")

    # The text is decoded, so what the document declares about its encoding does not count.
    parser = xml.parsers.expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler = opened
    parser.EndElementHandler = closed
    parser.CharacterDataHandler = data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text.encode(), True)
    except xml.parsers.expat.ExpatError as error:
        raise BadInput(f"not XML: {error}") from error
    except UnicodeEncodeError as error:
        raise BadInput("not XML: half of a surrogate pair in it") from error


def _local(name: str) -> str:
    return name.rpartition(":")[2]
