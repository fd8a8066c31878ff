"""From video files to stored segments, and back to the list of stores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reserve.config import DataConfig
from reserve.data.prepare.progress import preparation_progress
from reserve.data.prepare.record import prepare_and_record, recorded_stores
from reserve.data.prepare.results import PreparationReport

__all__ = ["prepare_stores", "recorded_stores"]


def prepare_stores(
    videos: Sequence[str | Path],
    folder: Path,
    data: DataConfig,
    *,
    workers: int,
    seed: int,
    audio_track: int | None,
    decoder: str = "auto",
) -> PreparationReport:
    """Prepares every video below `videos` into `folder` and shows progress. The outcome of each is in files.jsonl.

    `decoder` is "auto" or the name of one of `reserve.data.decode.DECODERS`.
    Raises BadInput if there is nothing to prepare and NothingPrepared if no file can be used.
    """
    with preparation_progress() as show:
        return prepare_and_record(
            videos,
            folder,
            data,
            workers=workers,
            seed=seed,
            audio_track=audio_track,
            decoder=decoder,
            on_result=show,
        )
