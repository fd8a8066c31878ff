"""Prepares one fold of a set of shards, and finishes the set after the last."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from reserve.config import DataConfig, FilterConfig
from reserve.data.decode import candidates
from reserve.data.decode.protocol import MediaLimits
from reserve.data.filters import check_filters
from reserve.data.prepare.shards.build import current_record
from reserve.data.prepare.shards.engines import Engine
from reserve.data.prepare.shards.engines.local import LocalEngine
from reserve.data.prepare.shards.events import Event, Report
from reserve.data.prepare.shards.finish import drop_damaged_records, finish, unfinished_shards
from reserve.data.prepare.shards.locks import POLL_SECONDS
from reserve.data.prepare.shards.outcomes import category
from reserve.data.prepare.shards.plan import STORES, ShardPlan, agree_on_settings, by_shard, section_values
from reserve.data.prepare.shards.sources import StoredVideo, find_sources, is_run
from reserve.data.prepare.video import PreparationSettings
from reserve.data.shards.layout import Sound
from reserve.data.shards.records import Manifest, Settings
from reserve.data.sources.labels import check_languages
from reserve.errors import BadInput, EnvironmentFailure

_SHOWN = 10
"""Skipped files that an error names."""


@dataclass(frozen=True)
class Preparation:
    """What the shards of a fold hold. `remaining` counts the shards of the set that are not finished, those of other
    folds in general. `decoders` counts the videos by the decoder of their pictures and the reason why a preferred one
    did not give them. `manifest` is that of the finished set, None until all folds are done."""

    videos: int = 0
    segments: int = 0
    words: int = 0
    bytes: int = 0
    shards: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    decoders: Counter[tuple[str, str]] = field(default_factory=Counter)
    remaining: int = 0
    manifest: Manifest | None = None


def prepare_shards(
    sources: Sequence[str | Path],
    out: str | Path,
    data: DataConfig,
    filters: FilterConfig,
    *,
    sound: Sound = "log_mel",
    videos_per_shard: int = 256,
    fold: int = 0,
    folds: int = 1,
    engine: Engine | None = None,
    workers: int = 1,
    seed: int = 0,
    audio_track: int | None = None,
    decoder: str = "auto",
    limits: MediaLimits | None = None,
    retry_skipped: bool = False,
    on_event: Callable[[Event, int], None] | None = None,
) -> Preparation:
    """Prepares fold `fold` of `folds` of the videos of `sources` into the shards of `out`.

    Any number of processes may do so at once, on any fold, on machines that share a file system: the files do not
    depend on who wrote them. Whoever finishes the last shard leaves out the duplicates and writes the manifest.

    Args:
        sources: video files, folders that are searched, or folders of runs, whose store files are taken instead.
        engine: where videos are prepared; by default in `workers` processes of this machine (0: in this process).
        retry_skipped: retry files that were skipped as unusable. Files that changed are always retried.
        on_event: called with every event and the number of videos of the fold, in this thread.

    Raises:
        ValueError: a value is wrong, or there is no such decoder or language.
        BadInput: there is nothing to prepare, `out` was prepared with other settings, or no file can be used.
        EnvironmentFailure: the machine failed, not a file. What is prepared is kept.
    """
    check_languages(data.languages)
    check_filters(filters)
    # Other machines have other working folders.
    out, paths = Path(os.path.abspath(out)), [Path(os.path.abspath(source)) for source in sources]
    _check(out, paths, videos_per_shard, fold, folds)
    plan = _plan(
        paths,
        out,
        PreparationSettings(data, seed, audio_track, limits or MediaLimits(), keep_sound=sound == "flac"),
        filters,
        decoder=decoder,
        videos_per_shard=videos_per_shard,
        retry_skipped=retry_skipped,
    )
    numbers = range(fold, plan.settings.num_shards, folds)
    total = sum(len(plan.sources.get(number, ())) for number in numbers)
    done = 0

    def report(event: Event) -> None:
        nonlocal done
        done += event.kind == "video"
        if on_event is not None:
            on_event(event, total)

    try:
        drop_damaged_records(plan, numbers)
        _build_fold(plan, engine or LocalEngine(workers), report, numbers)
        remaining = len(unfinished_shards(plan))
        manifest = None if remaining else finish(plan, workers=workers)
    except (EnvironmentFailure, OSError) as error:
        raise EnvironmentFailure(
            f"preparation stopped after {done} videos: {error}. What is prepared is kept: fix this and run the "
            "command again"
        ) from error
    if manifest is not None and not manifest.videos:
        raise BadInput(_nothing_usable(plan))
    return _summary(plan, numbers, remaining, manifest)


def _check(out: Path, paths: Sequence[Path], videos_per_shard: int, fold: int, folds: int) -> None:
    if videos_per_shard < 1:
        raise ValueError(f"videos_per_shard must be at least 1; got {videos_per_shard}")
    if folds < 1:
        raise ValueError(f"folds must be at least 1; got {folds}")
    if not 0 <= fold < folds:
        raise ValueError(f"fold must be from 0 to {folds - 1}, since there are {folds} folds; got {fold}")
    if os.path.lexists(out) and not out.is_dir():
        kind = "a file" if out.exists() else "a broken link"
        raise BadInput(f"OUT must be a folder or a name that is free; {out} is {kind}")
    if is_run(out) or any(path.resolve().is_relative_to(out.resolve()) for path in paths):
        raise BadInput(f"OUT must be a new folder or a set of shards; {out} holds what is to be prepared")


def _plan(
    paths: Sequence[Path],
    out: Path,
    preparation: PreparationSettings,
    filters: FilterConfig,
    *,
    decoder: str,
    videos_per_shard: int,
    retry_skipped: bool,
) -> ShardPlan:
    sources = find_sources(paths, preparation.data.languages)
    stored = isinstance(sources[0], StoredVideo)
    if not stored:
        candidates(decoder)  # An unknown name, or one that cannot run, must not become a setting.
    wanted = Settings(
        num_shards=-(-len(sources) // videos_per_shard),
        videos_per_shard=videos_per_shard,
        sound="flac" if preparation.keep_sound else "log_mel",
        seed=preparation.seed,
        audio_track=preparation.audio_track,
        decoders=(STORES,) if stored else (decoder,),
        data=section_values(preparation.data),
        filter=section_values(filters),
        limits=section_values(preparation.limits),
        versions=_versions(),
    )
    settings = agree_on_settings(out, wanted)
    plan = ShardPlan(out, settings, preparation, filters, by_shard(sources, settings.num_shards), retry_skipped)
    if settings.decoders != wanted.decoders:
        _check_earlier_decoder(plan)
    return plan


def _check_earlier_decoder(plan: ShardPlan) -> None:
    """Raises EnvironmentFailure if the decoder that a set was begun with cannot run here and is needed."""
    decoder = plan.settings.decoders[0]
    try:
        candidates(decoder)
    except (RuntimeError, ValueError) as error:
        if plan.retry_skipped or unfinished_shards(plan):
            raise EnvironmentFailure(
                f"{plan.out} was begun with the decoder {decoder!r}, and must be finished with it: {error}. Go on "
                "where it can run, or choose another OUT"
            ) from error


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("merlot-reserve", "torch", "av", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _build_fold(plan: ShardPlan, engine: Engine, report: Report, numbers: Sequence[int]) -> None:
    """Prepares the shards. Waits for those that other processes work on, and takes over if these die."""
    while numbers := engine.build(plan, numbers, report):
        time.sleep(POLL_SECONDS)


def _summary(plan: ShardPlan, numbers: Sequence[int], remaining: int, manifest: Manifest | None) -> Preparation:
    records = [record for number in numbers if (record := current_record(plan.out, number)) is not None]
    videos = [video for record in records for video in record.videos]
    return Preparation(
        videos=len(videos),
        segments=sum(video.segments for video in videos),
        words=sum(video.words for video in videos),
        bytes=sum(file.bytes for record in records for file in (record.tar, record.index) if file is not None),
        shards=len(records),
        skipped=Counter(category(skipped) for record in records for skipped in record.skipped),
        decoders=Counter((video.decoder, video.decoder_reason) for video in videos),
        remaining=remaining,
        manifest=manifest,
    )


def _nothing_usable(plan: ShardPlan) -> str:
    skipped = [
        each
        for number in range(plan.settings.num_shards)
        if (record := current_record(plan.out, number)) is not None
        for each in record.skipped
    ]
    lines = [f"  {each.video_id}: {each.reason}" for each in skipped[:_SHOWN]]
    if len(skipped) > _SHOWN:
        lines.append(f"  and {len(skipped) - _SHOWN} more")
    return "\n".join([f"none of the {len(skipped)} files could be used:", *lines])
