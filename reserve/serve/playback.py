"""Which videos browsers play, and the types under which they are sent."""

from __future__ import annotations

from pathlib import PurePath

from reserve.data.decode import MediaInfo

MEDIA_TYPES = {
    ".3gp": "video/3gpp",
    ".avi": "video/x-msvideo",
    ".flv": "video/x-flv",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp4": "video/mp4",
    ".mpeg": "video/mpeg",
    ".mpg": "video/mpeg",
    ".mts": "video/mp2t",
    ".ogv": "video/ogg",
    ".ts": "video/mp2t",
    ".webm": "video/webm",
    ".wmv": "video/x-ms-wmv",
}
"""The endings of files that are listed and may be uploaded, with their media types."""

_PLAYED = {
    ".m4v": ("h264", "hevc", "av1"),
    ".mkv": ("h264", "vp8", "vp9", "av1"),
    ".mov": ("h264", "hevc"),
    ".mp4": ("h264", "hevc", "vp9", "av1"),
    ".ogv": ("theora", "vp8"),
    ".webm": ("vp8", "vp9", "av1"),
}
"""Containers and codecs that at least one common browser plays. The page finds out about the visitor's own."""


def why_not_played(path: PurePath, info: MediaInfo) -> str | None:
    """Why no browser plays a video, as a short phrase; None if one may."""
    suffix = path.suffix.lower()
    if suffix not in _PLAYED:
        return f"browsers do not play {suffix} files"
    if info.video is not None and info.video.codec and info.video.codec not in _PLAYED[suffix]:
        return f"browsers do not play {info.video.codec} in {suffix} files"
    return None
