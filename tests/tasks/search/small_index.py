"""Small videos to search, and an index of them."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.media_files import Sound, click_track, number_picture, write_media


def write_video(path: Path, seconds: float, number: int, *, sound: bool = True) -> Path:
    """A video whose pictures and clicks depend on `number`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clicks = [second + 0.05 * ((second + number) % 7) + 0.3 for second in range(int(seconds))]
    return write_media(
        path,
        frame_times=[index / 2 for index in range(int(seconds * 2))],
        picture=lambda index: number_picture((7 * number + 29 * index) % 256),
        sounds=[Sound(click_track(seconds, clicks, rate=16000), rate=16000)] if sound else [],
    )


def write_videos(folder: Path) -> Path:
    """One of two windows, one without sound, one that is no video."""
    write_video(folder / "long.mp4", 47.0, 1)
    write_video(folder / "silent.mp4", 12.0, 2, sound=False)
    (folder / "noise.mp4").write_bytes(b"noise")
    return folder
