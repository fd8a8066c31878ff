"""Damaged transcripts of every format: each gives plausible words or BadInput, soon and in little memory."""

from __future__ import annotations

import html
import json
import math
import re
import resource
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from reserve.data.sources.encodings import DAMAGED
from reserve.data.sources.transcripts import is_recognised, is_word_timed, read_transcript
from reserve.data.types import Word
from reserve.errors import BadInput
from tests.fuzz.mutations import mutated

MAX_SECONDS = 5.0
"""CPU time of a file of a few kilobytes; a hundredth is usual."""
MAX_MEMORY = 512 * 2**20
"""Bytes that all files together may add to the process."""
_CLOCK = re.compile(r"\d\d:\d\d:\d\d[.,]\d\d\d")
_LINES = (
    ">> ANN: so we went to the café, and it was closed",
    "- Was it? [door slams]\n- It's true &amp; sad",
    "Bob: then I said: never give up",
    "♪ la la la ♪ (they laugh)",
    "по дороге домой мы видели señor Müller",
    "私たちは 家に 帰りました",
    "the answer is 42, at 10:30 or so",
    "<i>well</i> that is all we have for today",
)
# Pieces that parsers stumble over, written into the middle of a file.
_HOSTILE = tuple(
    piece.encode()
    for piece in (
        *("-->", " --> ", "<", "</", "<00:00:", "<u>", "{\\k", "{\\p1}", "}", "[", "]", "]]>", "(", ":", "\n\n", "\r"),
        *("&#", "&#x41;", "&amp;", "<!--", "<![CDATA[", "<!DOCTYPE a [", "WEBVTT\n", "NOTE\n", "STYLE\n", "\n7\n"),
        *("X-TIMESTAMP-MAP=MPEGTS:9,LOCAL:0\n", "00:00:05,000 --> 00:00:04,000\n", "99:99:99,999", "-1", "1e999"),
        *(
            "NaN",
            "null",
            "[]",
            "{}",
            '"',
            "\\u0000",
            "\\ud800",
            "9" * 5000,
            "[" * 2000,
            "(" * 2000,
            "<b>" * 500,
            "a " * 3000,
        ),
        *("\ufeff", "\0", "\u2028", "\u202e", "\U0001f3b5", "Ã©â€™", "：", "—", "\\N", "[br]"),
    )
)


def _timed(clock: str = ",") -> Iterator[tuple[float, float, str, str]]:
    """Start and end of each line, the same as text, and the line."""
    for index, line in enumerate(_LINES * 4):
        start, end = 2.0 * index, 2.0 * index + 3.0
        times = [f"00:{int(time) // 60:02}:{time % 60:06.3f}".replace(".", clock) for time in (start, end)]
        yield start, end, f"{times[0]} --> {times[1]}", line


def seed_files() -> dict[str, bytes]:
    """Good transcripts that look like real ones, by name; at least one of each format."""
    srt = "".join(f"{i + 1}\n{times}\n{line}\n\n" for i, (_, _, times, line) in enumerate(_timed()))
    vtt = "WEBVTT\nKind: captions\n\nNOTE made up\n\n" + "".join(
        f"{times} align:start\n{line}\n\n" for _, _, times, line in _timed(".")
    )
    plain = [(start, end, html.unescape(re.sub(r"<[^<>]*>", "", line))) for start, end, _, line in _timed()]
    words = [
        {"word": f" {word}", "start": start + 0.2 * place, "end": start + 0.2 * place + 0.2}
        for start, _, line in plain
        for place, word in enumerate(line.split())
    ]
    segments = [{"start": start, "end": end, "text": line} for start, end, line in plain]
    events = [
        {
            "tStartMs": int(start * 1000),
            "dDurationMs": 3000,
            "segs": [{"utf8": f"{w} ", "tOffsetMs": 200 * i} for i, w in enumerate(line.split())],
        }
        for start, _, line in plain
    ]
    paragraphs = "".join(
        f'<p t="{start * 1000:.0f}" d="3000">'
        + "".join(f'<s t="{200 * i}">{html.escape(w)} </s>' for i, w in enumerate(line.split()))
        + "</p>"
        for start, _, line in plain
    )
    dialogue = "".join(
        f"Dialogue: 0,0:00:{start % 60:05.2f},0:00:{end % 60:05.2f},D,,0,0,0,,"
        + "".join(f"{{\\k20}}{w} " for w in line.split())
        + "\n"
        for start, end, line in plain
        if end < 60
    )
    karaoke = "".join(
        f"[{start // 60:02.0f}:{start % 60:05.2f}]<00:{start % 60:05.2f}>{line.splitlines()[0]}\n"
        for start, _, line in plain
    )
    texts = {
        "a.srt": srt,
        "b.srt": _highlighted("<u>", "</u>"),
        "c.srt": _rolling(),
        "a.vtt": vtt,
        "b.vtt": "WEBVTT\n\n" + _highlighted("<c.now>", "</c>").replace(",", "."),
        "c.vtt": "WEBVTT\n\n" + _youtube(),
        "a.json": json.dumps(
            {"segments": [{**segment, "words": words[i : i + 1]} for i, segment in enumerate(segments)]}
        ),
        "b.json": json.dumps(words, indent=1),
        "c.json": json.dumps(
            {"results": {"items": [{"start_time": str(i), "alternatives": [{"content": "so"}]} for i in range(40)]}}
        ),
        "d.json": "\n".join(json.dumps({"result": [word], "text": ""}) for word in words[:50]),
        "a.json3": json.dumps({"wireMagic": "pb3", "events": events}),
        "a.srv3": f'<?xml version="1.0"?><timedtext format="3"><body>{paragraphs}</body></timedtext>',
        "a.srv2": "<timedtext>" + paragraphs.replace("<p ", "<text ").replace("</p>", "</text>") + "</timedtext>",
        "a.srv1": "<transcript>"
        + "".join(f'<text start="{start}" dur="3">{html.escape(line)}</text>' for start, _, line in plain)
        + "</transcript>",
        "a.ttml": '<tt xmlns="http://www.w3.org/ns/ttml"><body><div>'
        + "".join(f'<p begin="{start}s" end="{end}s">{html.escape(line)}</p>' for start, end, line in plain)
        + "</div></body></tt>",
        "a.ass": "[Script Info]\n\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, "
        + f"Effect, Text\n{dialogue}",
        "a.sbv": "".join(f"{times[1:].replace(' --> 0', ',')}\n{line}\n\n" for _, _, times, line in _timed(".")),
        "a.lrc": f"[ar:nobody]\n[offset:+100]\n{karaoke}",
        "a.align": "".join(f"{i * 9000} {i * 9000 + 8000} word{i}\n" for i in range(60)),
    }
    files = {name: text.encode() for name, text in texts.items()}
    files["a.dfxp"], files["a.ssa"] = files["a.ttml"], files["a.ass"]
    western = "".join(f"{i}\n00:00:{i:02},000 --> 00:00:{i + 1:02},000\nthe café of señor Zoë\n\n" for i in range(50))
    files |= {"d.srt": western.encode("cp1252"), "e.srt": western.encode("utf-16"), "f.srt": srt.encode("utf-8-sig")}
    return files


def _highlighted(opening: str, closing: str) -> str:
    words = ["so", "we", "went", "to", "the", "market", "and", "bought", "some", "apples"]
    lines = [[*words[:i], f"{opening}{word}{closing}", *words[i + 1 :]] for i, word in enumerate(words)]
    return "".join(
        f"{i + 1}\n00:00:{i:02},000 --> 00:00:{i + 1:02},000\n{' '.join(line)}\n\n" for i, line in enumerate(lines * 5)
    )


def _rolling() -> str:
    words = [f"word{i}" for i in range(50)]
    return "".join(
        f"{i + 1}\n00:00:{i:02},000 --> 00:00:{i + 1:02},000\n{' '.join(words[max(i - 4, 0) : i + 1])}\n\n"
        for i in range(50)
    )


def _youtube() -> str:
    return "".join(
        f"00:00:{i:02}.000 --> 00:00:{i + 1:02}.000\nword{i - 1} more\nword{i}<00:00:{i:02}.500><c> more</c>\n\n"
        for i in range(1, 50)
    )


def damaged(seeds: dict[str, bytes], rng: np.random.Generator) -> tuple[str, bytes]:
    """A name and a damaged file."""
    names = list(seeds)
    name, other = names[rng.integers(len(names))], names[rng.integers(len(names))]
    content = seeds[name]
    if rng.random() < 0.7:
        content = mutated(content, seeds[other], rng)
    for _ in range(rng.integers(3)):
        piece = _HOSTILE[rng.integers(len(_HOSTILE))] * int(rng.choice([1, 1, 1, 2, 40]))
        place = int(rng.integers(len(content) + 1))
        content = content[:place] + piece + content[place + (len(piece) if rng.random() < 0.3 else 0) :]
    return name, content


def check(path: Path) -> list[Word] | None:
    """Reads a file. Returns its words, None if it is refused; raises AssertionError if either is wrong."""
    start = time.process_time()
    is_word_timed(path)
    is_recognised(path)
    try:
        words, warnings = read_transcript(path)
    except BadInput as refused:
        words, warnings = None, [str(refused)]
    seconds = time.process_time() - start
    assert seconds < MAX_SECONDS, f"{seconds:.1f} s"
    assert all(0 < len(warning) < 500 for warning in warnings), f"a message of {max(map(len, warnings))} characters"
    if words is None:
        return None
    assert all(math.isfinite(word.start) and 0 <= word.start <= word.end < math.inf for word in words)
    assert all(before.start <= after.start for before, after in pairwise(words))
    assert all(word.text and not any(map(str.isspace, word.text)) for word in words), "white space in a word"
    assert not any(DAMAGED in word.text for word in words), "a damaged word"
    if path.suffix in (".srt", ".vtt", ".sbv"):
        assert not any(_CLOCK.search(word.text) for word in words), "a time is a word"
    return words


def read_damaged(folder: Path, count: int, seed: int, seeds: dict[str, bytes]) -> tuple[int, int]:
    """How many of `count` damaged files were read and how many refused. A file that fails stays in `folder`."""
    rng = np.random.default_rng(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = 0
    for index in range(count):
        name, content = damaged(seeds, rng)
        path = folder / f"{seed}-{index}-{name}"
        path.write_bytes(content)
        try:
            read += check(path) is not None
        except Exception as error:
            raise AssertionError(f"{path}: {type(error).__name__}: {error}") from error
        path.unlink()
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert used < MAX_MEMORY, f"{used} bytes more than before"
    return read, count - read


def fuzz(seconds: float, seed: int) -> int:
    """Reads damaged transcripts for `seconds`; returns how many. A failing file stays on disk."""
    end, done, seeds = time.monotonic() + seconds, 0, seed_files()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-transcripts-"))
    while time.monotonic() < end:
        read_damaged(folder, 500, seed + done, seeds)
        done += 500
    folder.rmdir()
    return done
