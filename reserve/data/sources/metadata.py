"""What the publisher wrote about a video, from the `.info.json` that yt-dlp writes beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from reserve.data.sources.encodings import DAMAGED
from reserve.data.sources.text_files import parse_json, read_text
from reserve.data.types import VideoMetadata
from reserve.errors import BadInput

# An example keeps a few hundred tokens of these; the platforms allow fewer characters.
_MAX_TITLE = 1_000
_MAX_DESCRIPTION = 10_000
_MAX_TAG = 200
_MAX_TAGS = 500
_DAMAGED_WORD = re.compile(rf"[^\s{DAMAGED}]*{DAMAGED}\S*\s?")


def load_metadata(path: str | Path | None) -> tuple[VideoMetadata, str | None]:
    """Title, description and tags of an `.info.json`, and a warning if it cannot be read.

    Broken metadata must not cost the video: without a usable file, the fields are empty.
    """
    if path is None:
        return VideoMetadata(), None
    try:
        decoded = read_text(Path(path))
        info = parse_json(decoded.text)
    except BadInput as error:
        return VideoMetadata(), f"metadata ignored: {Path(path).name}: {error}"
    if not isinstance(info, dict):
        return VideoMetadata(), f"metadata ignored: {Path(path).name}: not a JSON object"
    tags = info.get("tags")
    metadata = VideoMetadata(
        title=_text(info.get("title"), _MAX_TITLE),
        description=_text(info.get("description"), _MAX_DESCRIPTION),
        tags=tuple(filter(None, (_text(tag, _MAX_TAG) for tag in tags[:_MAX_TAGS]))) if isinstance(tags, list) else (),
    )
    return metadata, f"metadata: {Path(path).name}: {'; '.join(decoded.warnings)}" if decoded.warnings else None


def _text(value: Any, limit: int) -> str:
    """A string that can be encoded as UTF-8, since JSON can hold halves of surrogate pairs, without damaged words."""
    if not isinstance(value, str):
        return ""
    text = value[:limit].encode("utf-8", errors="replace").decode("utf-8").strip()
    return _DAMAGED_WORD.sub("", text).strip() if DAMAGED in text else text
