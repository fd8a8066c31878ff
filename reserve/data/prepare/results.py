"""The outcome of a preparation: one result per file, and all of them together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reserve.data.types import Choice

_SHOWN_REASONS = 3


@dataclass(frozen=True, slots=True)
class FileResult:
    """The outcome for one file.

    `segments`, `words`, `seconds` (0 if an earlier release prepared it), `choice`, `warnings` and `store` are set if it
    was prepared now or is `unchanged` since an earlier run; `reason` if it was skipped. `decoder` gave the pictures,
    and `decoder_reason` is why a preferred one did not.
    """

    video_id: str
    path: Path
    status: Literal["prepared", "unchanged", "skipped"]
    segments: int = 0
    words: int = 0
    seconds: float = 0.0
    choice: Choice = field(default_factory=Choice)
    reason: str = ""
    warnings: tuple[str, ...] = ()
    store: Path | None = None
    decoder: str = ""
    decoder_reason: str = ""


@dataclass(frozen=True, slots=True)
class PreparationReport:
    """The results of all files, in the order of the sources."""

    results: tuple[FileResult, ...]

    @property
    def stores(self) -> list[Path]:
        """Store files of the usable videos."""
        return [result.store for result in self.results if result.store is not None]

    @property
    def skipped(self) -> list[FileResult]:
        return [result for result in self.results if result.status == "skipped"]

    def summary(self) -> str:
        """All counts in one sentence."""
        usable = [result for result in self.results if result.status != "skipped"]
        unchanged = sum(result.status == "unchanged" for result in usable)
        decoders = decoder_counts(Counter((result.decoder, result.decoder_reason) for result in usable))
        return (
            f"{len(self.results)} files: {len(usable)} usable ({unchanged} unchanged) with "
            f"{sum(result.segments for result in usable)} segments and {sum(result.words for result in usable)} words, "
            f"{len(self.skipped)} skipped" + (f"; frames by {decoders}" if decoders else "")
        )


def decoder_counts(files: Counter[tuple[str, str]]) -> str:
    """How many files each decoder served, from the count of files by its name and the reason against others:
    "torchcodec: 12, pyav: 3 (torchcodec: its pixels are not square: 2, ...)", with the most frequent reasons."""
    counts: dict[str, Counter[str]] = {}
    for (name, reason), count in files.items():
        if name:
            counts.setdefault(name, Counter())[reason] += count
    parts = []
    for name, reasons in sorted(counts.items(), key=lambda item: -item[1].total()):
        given = [(reason, count) for reason, count in reasons.most_common() if reason]
        shown = [f"{reason}: {count}" if len(given) > 1 else reason for reason, count in given[:_SHOWN_REASONS]]
        shown += ["…"] if len(given) > _SHOWN_REASONS else []
        parts.append(f"{name}: {reasons.total()}" + (f" ({', '.join(shown)})" if shown else ""))
    return ", ".join(parts)
