"""The outcome of a preparation: one result per file, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reserve.data.types import Choice


@dataclass(frozen=True, slots=True)
class FileResult:
    """The outcome for one file.

    `segments`, `words`, `seconds` (0 if an earlier release prepared it), `choice`, `warnings` and `store` are set if it
    was prepared now or is `unchanged` since an earlier run; `reason` if it was skipped.
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
        return (
            f"{len(self.results)} files: {len(usable)} usable ({unchanged} unchanged) with "
            f"{sum(result.segments for result in usable)} segments and {sum(result.words for result in usable)} words, "
            f"{len(self.skipped)} skipped"
        )
