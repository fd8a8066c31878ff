"""The outcome of each file of a run, on disk: `files.jsonl`, one line per file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from reserve.config import DataConfig
from reserve.data.prepare.results import FileResult, PreparationReport
from reserve.data.prepare.videos import prepare_videos
from reserve.data.sources.discover import discover_sources
from reserve.data.sources.labels import check_languages
from reserve.data.store import SUFFIX
from reserve.errors import BadInput, NothingPrepared
from reserve.fs import write_text_atomic

NAME = "files.jsonl"


def prepare_and_record(
    videos: Sequence[str | Path],
    out: Path,
    data: DataConfig,
    *,
    workers: int,
    seed: int,
    audio_track: int | None = None,
    decoder: str = "auto",
    on_result: Callable[[FileResult, int], None] | None = None,
) -> PreparationReport:
    """Prepares every video below `videos` into `out`/prepared and writes `out`/files.jsonl, even if all files fail.

    Calls `on_result` with each result as it comes and the total number of files. `decoder` is as in prepare_videos.
    Raises ValueError for an unknown language, BadInput if there is nothing to prepare, NothingPrepared if no file can
    be used, and EnvironmentFailure if the machine fails midway (a full disk): then nothing is recorded, and what was
    prepared is kept for the next try.
    """
    check_languages(data.languages)
    sources = discover_sources(videos, languages=data.languages)
    out.mkdir(parents=True, exist_ok=True)
    report = None
    try:
        report = prepare_videos(
            sources,
            out / "prepared",
            data,
            workers=min(workers, len(sources)),
            seed=seed,
            audio_track=audio_track,
            decoder=decoder,
            on_result=None if on_result is None else lambda result: on_result(result, len(sources)),
        )
    except NothingPrepared as error:
        report = error.report
        raise
    finally:
        if report is not None:
            _write(report, out / NAME)
    return report


def recorded_stores(out: Path) -> list[Path]:
    """The store files of a run's usable videos, in the order of the videos. Raises BadInput if files.jsonl is damaged,
    or names a file elsewhere."""
    path = out / NAME
    stores = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            name = json.loads(line)["store"]
            if name and not (Path(name).name == name and name.endswith(SUFFIX)):
                raise ValueError(f"{name!r:.80} is not the name of a store file")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadInput(f"{path}, line {number} is damaged: {error}") from error
        if name:
            stores.append(out / "prepared" / name)
    return stores


def _write(report: PreparationReport, path: Path) -> None:
    lines = [
        {
            "file": str(result.path),
            "status": result.status,
            "segments": result.segments,
            "words": result.words,
            "reason": result.reason,
            "transcript": result.choice.transcript or None,
            "audio": result.choice.audio or None,
            "passed_over": [asdict(other) for other in result.choice.passed_over],
            "warnings": list(result.warnings),
            "decoder": result.decoder or None,
            "decoder_reason": result.decoder_reason,
            "store": result.store.name if result.store else None,
        }
        for result in report.results
    ]
    write_text_atomic(path, "".join(json.dumps(line) + "\n" for line in lines))
