"""Which decoders files would get, and why: the table that `reserve backends VIDEO ...` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reserve.config import DataConfig
from reserve.data.decode.choice import Candidates, DecoderChoice, PassedOverDecoder
from reserve.data.decode.protocol import BatchDecoder, Fallback, FileDecoder, Media, MediaLimits
from reserve.data.sources.tracks import choose_audio_track
from reserve.errors import BadInput, Unsuited
from reserve.terminal import printable

# Seconds at the start of a file that are decoded to see who decodes them.
_TRIED_SECONDS = 10.0
_COLUMNS = ("file", "codec", "size", "pixels", "pictures", "sound")


@dataclass(frozen=True, slots=True)
class FileChoice:
    """Who decodes a file's `pictures` and `sound`, None where it has none. `codec`, `size` and `pixels` describe its
    video. `error` is why the file cannot be used."""

    path: Path
    codec: str = ""
    size: str = ""
    pixels: str = ""
    pictures: DecoderChoice | None = None
    sound: DecoderChoice | None = None
    error: str = ""


def choose_for_file(path: Path, decoders: Candidates) -> FileChoice:
    """Opens a file and decodes the beginning of it, since some reasons show only then."""
    try:
        opener = decoders.files[0]
        with opener.open(path, MediaLimits(max_duration=_TRIED_SECONDS)) as media:
            video, pictures, sound = media.info.video, None, None
            if video is not None:
                pictures = _try_pictures(media, path, decoders)
            if media.info.audio:
                sound = _try_sound(media, opener, decoders)
    except BadInput as error:
        return FileChoice(path, error=str(error))
    if video is None:
        return FileChoice(path, pictures=pictures, sound=sound)
    return FileChoice(path, video.codec, f"{video.width}x{video.height}", video.pixel_format, pictures, sound)


def _try_sound(media: Media, opener: FileDecoder, decoders: Candidates) -> DecoderChoice:
    track = choose_audio_track(media.info.audio, DataConfig().languages)
    media.info.check_audio(track)
    with suppress(BadInput):  # there may be none in the first seconds
        media.soundtrack(track=track)
    return _served(opener, media.fallbacks.get("sound"), decoders.files)


def _try_pictures(media: Media, path: Path, decoders: Candidates) -> DecoderChoice:
    choice = decoders.choose(media.info)
    against = choice.passed_over
    if isinstance(choice.decoder, BatchDecoder):
        try:
            choice.decoder.request(media, path, (0.0,), MediaLimits())
            return choice
        except Unsuited as error:
            against = (*against, PassedOverDecoder(choice.decoder.name, str(error)))
        choice = Candidates(decoders.files).choose(media.info)
        against = (*against, *choice.passed_over)
    assert isinstance(choice.decoder, FileDecoder)
    with choice.decoder.open(path, MediaLimits(max_duration=_TRIED_SECONDS)) as opened:
        list(opened.frames([0.0]))
        served = _served(choice.decoder, opened.fallbacks.get("pictures"), decoders.files)
    return DecoderChoice(served.decoder, (*against, *served.passed_over))


def _served(opener: FileDecoder, fallback: Fallback | None, files: Sequence[FileDecoder]) -> DecoderChoice:
    if fallback is None:
        return DecoderChoice(opener)
    (served,) = (decoder for decoder in files if decoder.name == fallback.decoder)
    return DecoderChoice(served, (PassedOverDecoder(opener.name, fallback.reason),))


def file_table(choices: Iterable[FileChoice]) -> str:
    """One line a file, aligned, with the reasons against decoders and the errors indented below it."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    notes: list[list[str]] = [[]]
    for each in choices:
        names = [choice.decoder.name if choice else "-" for choice in (each.pictures, each.sound)]
        rows.append((printable(str(each.path)), each.codec or "-", each.size or "-", each.pixels or "-", *names))
        notes.append([f"error: {each.error}"] if each.error else _reasons(each))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = []
    for row, below in zip(rows, notes, strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        lines += [f"    {printable(note)}" for note in below]
    return "\n".join(lines)


def _reasons(each: FileChoice) -> list[str]:
    parts = (("pictures", each.pictures), ("sound", each.sound))
    return [f"{name} not by {other}" for name, choice in parts if choice for other in choice.passed_over]
