"""The files that lie beside a video: which are its transcripts, in what order to try them, and what is passed over."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reserve.data.sources.labels import Labels, language_rank, parse_labels
from reserve.data.sources.transcripts import TRANSCRIPT_SUFFIXES, UNREAD_FORMATS, is_recognised, is_word_timed
from reserve.data.types import PassedOver

_INFO = ".info.json"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A transcript beside a video and what its name says about it."""

    path: Path
    labels: Labels


class Companions:
    """The transcripts and metadata of one folder. Each belongs to the media file whose name it extends furthest.

    Names must agree to the letter; failing that, case and the composition of accents (which macOS changes) do not
    matter if only one media file then fits.
    """

    def __init__(self, folder: Path, media: Iterable[Path]) -> None:
        exact = {prefix for path in media for prefix in (path.name, path.stem)}
        folded: dict[str, str | None] = {}
        for own in exact:
            folded[_folded(own)] = None if _folded(own) in folded else own
        self._by_prefix: dict[str, list[tuple[list[str], Path]]] = {}
        for path in sorted(folder.iterdir()):
            ending = _INFO if path.name.endswith(_INFO) else path.suffix
            if ending != _INFO and ending.lower() not in (*TRANSCRIPT_SUFFIXES, *UNREAD_FORMATS):
                continue
            parts = path.name.removesuffix(ending).split(".")
            for size in range(len(parts), 0, -1):
                name = ".".join(parts[:size])
                if (prefix := name if name in exact else folded.get(_folded(name))) is not None:
                    self._by_prefix.setdefault(prefix, []).append((parts[size:], path))
                    break

    def _of(self, media: Path) -> list[tuple[list[str], Path]]:
        return self._by_prefix.get(media.name, []) + self._by_prefix.get(media.stem, [])

    def info(self, media: Path) -> Path | None:
        """The metadata file of `media`."""
        return next((path for middle, path in self._of(media) if path.name.endswith(_INFO) and not middle), None)

    def transcripts(
        self, media: Path, languages: Sequence[str]
    ) -> tuple[tuple[Candidate, ...], tuple[PassedOver, ...]]:
        """The transcripts of `media`, best first, and the files that are not read."""
        ranked: list[tuple[Any, Candidate]] = []
        passed_over = []
        for middle, path in self._of(media):
            if path.name.endswith(_INFO):
                continue
            if reason := UNREAD_FORMATS.get(path.suffix.lower()):
                passed_over.append(PassedOver(path.name, reason))
            elif (labels := parse_labels([part for part in middle if part])) is None:
                unknown = ".".join(middle)
                passed_over.append(PassedOver(path.name, f"{unknown!r} in its name is no language and no label"))
            else:
                candidate = Candidate(path, replace(labels, is_automatic=labels.is_automatic or is_recognised(path)))
                ranked.append((_rank(candidate, languages), candidate))
        ranked.sort(key=lambda pair: pair[0])
        return tuple(candidate for _, candidate in ranked), tuple(passed_over)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _rank(candidate: Candidate, languages: Sequence[str]) -> tuple[Any, ...]:
    """Smaller is better."""
    labels, path = candidate.labels, candidate.path
    rank, is_other_region = language_rank(labels, languages)
    return (
        labels.is_partial,
        rank,
        is_other_region,
        # Without a wanted language, that of the speakers; the others are translations.
        rank == len(languages) and not labels.is_original,
        labels.is_automatic,
        not is_word_timed(path),
        labels.is_hearing_impaired,
        TRANSCRIPT_SUFFIXES.index(path.suffix.lower()),
        not labels.language,
        path.stem,
    )
