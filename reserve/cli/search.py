"""Search videos for moments by text or sound."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reserve.cli.asked_model import add_model_arguments, check_model_arguments, load_asked_model
from reserve.cli.counting import counted
from reserve.errors import UsageError
from reserve.terminal import printable_lines

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from reserve.model.merlot_reserve import MerlotReserve
    from reserve.tasks.search import Moment

logger = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument(
        "places_and_text",
        type=str,
        nargs="*",
        help="video files, folders, and sets of prepared shards (folders or URLs), and last the text to search for; "
        "with --sound only the places, and with --index they may be left out",
    )
    parser.add_argument("--sound", type=Path, help="search for this sound instead of a text: a sound or video file")
    parser.add_argument("--sound_start", type=float, default=0.0, help="second of --sound where the query begins")
    parser.add_argument("--sound_stop", type=float, help="second of --sound where it ends; by default its end")
    parser.add_argument(
        "--index",
        type=Path,
        help="the folder of the index, which the places are added to and all of which is searched; by default one in "
        "the user's cache for just these places and weights",
    )
    parser.add_argument("--top", type=int, default=10, help="moments to find")
    parser.add_argument("--gap", type=float, default=5.0, help="least seconds between two moments of a video")
    parser.add_argument("--workers", type=int, help="videos decoded at a time; by default 4 with a GPU, else 1")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model_arguments(parser)


def run(options: Namespace) -> None:
    places, text = _places_and_text(options)
    for name in ("top", "workers"):
        if options[name] is not None and options[name] < 1:
            raise UsageError(f"--{name} must be at least 1; got {options[name]}")
    if not options.gap >= 0:
        raise UsageError(f"--gap must be at least 0; got {options.gap}")
    check_model_arguments(options)
    from reserve.tasks.search import MomentIndex, build_index
    from reserve.tasks.search.engine import load_faiss

    load_faiss()  # before hours of encoding, rather than after

    model, tokenizer, config = load_asked_model(options)
    folder = options.index or default_index(places, model)
    if places:
        workers = options.workers or (4 if model.device.type == "cuda" else 1)
        with counted("encoding") as progress:
            report = build_index(
                *(places, folder, model),
                config=config,
                workers=workers,
                mirror=options.index is None,
                progress=progress,
            )
        logger.info("%s", report)
    index = MomentIndex.open(folder)
    if text is None:
        found = index.search_sound(
            options.sound, options.sound_start, options.sound_stop, options.top, model=model, gap=options.gap
        )
    else:
        found = index.search_text(text, options.top, model=model, tokenizer=tokenizer, gap=options.gap)
    if options.json:
        print(json.dumps([moment.to_json() for moment in found], indent=1, allow_nan=False))
    else:
        print(printable_lines(table(found)))


def table(found: Sequence[Moment]) -> str:
    """The moments as aligned text; files below the current folder by their relative path."""
    if not found:
        return "no moment: the index is empty"
    rows = [("", "score", "from", "to", "video")]
    for number, moment in enumerate(found, 1):
        video = f"{moment.place.rstrip('/')}: {moment.video}" if moment.place else _shown_path(moment.video)
        rows.append((str(number), f"{moment.score:.3f}", f"{moment.start:.1f} s", f"{moment.end:.1f} s", video))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def default_index(places: Sequence[str], model: MerlotReserve) -> Path:
    """The folder in the user's cache of the index of these places by this model."""
    from reserve.data.shards.files import user_cache
    from reserve.tasks.pretrain.shard_sets import absolute_place
    from reserve.tasks.search.index import model_identity

    key = "\n".join((model_identity(model), *sorted(map(absolute_place, places))))
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
    return user_cache().with_name("moments") / digest[:16]


def _places_and_text(options: Namespace) -> tuple[list[str], str | None]:
    """The places, and the text unless there is a sound to search for. Raises UsageError."""
    words = list(options.places_and_text)
    text: str | None = None
    if options.sound is None:
        if not words:
            raise UsageError('search needs places and then the text, as in: search videos "a red circle"; or --sound')
        text = words.pop()
        if not words and options.index is None:
            raise UsageError(f"search has one argument, {text!r}: name the videos, and last the text to search for")
        if os.path.isfile(text) or (os.sep in text and os.path.isdir(text)):
            raise UsageError(f"the last argument must be the text to search for; {text} is a file or folder")
        if not text.strip():
            raise UsageError("the text to search for is empty")
    elif not words and options.index is None:
        raise UsageError("search needs the places to search, or --index")
    return words, text


def _shown_path(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
