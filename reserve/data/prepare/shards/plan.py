"""What the processes that prepare a set of shards share: its sources by shard and its settings."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from reserve.config import FilterConfig
from reserve.data.prepare.jobs import Job, make_job
from reserve.data.prepare.shards.locks import check_locks, locked
from reserve.data.prepare.shards.sources import Source, StoredVideo
from reserve.data.prepare.video import PreparationSettings
from reserve.data.shards.layout import SETTINGS, WORK, Sound, shard_name, shard_of
from reserve.data.shards.records import Settings, read_settings, write_settings
from reserve.errors import BadInput

Item = Job | StoredVideo
"""A video to prepare."""
STORES = "stores"
"""Stands for the decoders of a set that is made from store files."""
AUTO = "auto"
_MAY_DIFFER = {"versions", "num_shards"}


@dataclass(frozen=True)
class ShardPlan:
    """The sources of each shard, and all that decides the shards' contents. Objects can be pickled."""

    out: Path
    settings: Settings
    preparation: PreparationSettings
    filters: FilterConfig
    sources: Mapping[int, Sequence[Source]]
    retry_skipped: bool = False

    @property
    def work(self) -> Path:
        return self.out / WORK

    @property
    def from_stores(self) -> bool:
        """Whether the sources are store files."""
        return self.settings.decoders == (STORES,)

    @property
    def sound(self) -> Sound:
        """What the shards hold sound as."""
        return "flac" if self.preparation.keep_sound else "log_mel"

    def only(self, number: int) -> ShardPlan:
        """The plan of a single shard."""
        return replace(self, sources={number: self.sources.get(number, ())})

    def items(self, number: int) -> list[Item]:
        """The videos of a shard, by `video_id`."""
        decoder = self.settings.decoders[0]
        return [
            source
            if isinstance(source, StoredVideo)
            else make_job(source, self.folder(number), self.preparation, decoder)
            for source in self.sources.get(number, ())
        ]

    def folder(self, number: int) -> Path:
        """Where the stores of a shard lie until it is written."""
        return self.work / shard_name(number)

    def lock(self, number: int) -> Path:
        return self.work / f"{shard_name(number)}.lock"

    @property
    def set_lock(self) -> Path:
        """Held while the settings or the manifest are written."""
        return self.work / "set.lock"


def video_id(item: Item) -> str:
    return item.video_id if isinstance(item, StoredVideo) else item.source.video_id


def source_path(item: Item) -> Path:
    return item.path if isinstance(item, StoredVideo) else item.source.path


def by_shard(sources: Sequence[Source], num_shards: int) -> dict[int, list[Source]]:
    """The sources of each shard that has any."""
    shards: dict[int, list[Source]] = {}
    for source in sources:
        shards.setdefault(shard_of(source.video_id, num_shards), []).append(source)
    return shards


def agree_on_settings(out: Path, wanted: Settings) -> Settings:
    """The settings of the set in `out`. The first process writes them; `wanted` of any other must be equal.

    Raises BadInput naming each setting that differs, and EnvironmentFailure where `out` has no locks.
    """
    path = out / SETTINGS
    if not path.exists():
        check_locks(out / WORK)
        with locked(out / WORK / "set.lock"):
            if not path.exists():
                write_settings(out, wanted)
    try:
        settings = read_settings(path.read_bytes())
    except BadInput as error:
        raise BadInput(f"{out}: {error}") from error
    if different := _differences(settings, wanted):
        raise BadInput(
            f"{out} was prepared with other settings: {'; '.join(different)}. Give those, or choose another OUT"
        )
    return settings


def _differences(old: Settings, new: Settings) -> list[str]:
    """Each setting that differs, with both values."""
    if new.decoders == (AUTO,) and old.decoders != (STORES,):
        new = replace(new, decoders=old.decoders)  # Whatever the set was begun with; earlier releases named it.
    before, after = (_flat(settings) for settings in (old, new))
    names = [*before, *(name for name in after if name not in before)]
    return [
        f"{name} was {before.get(name, 'not known')}, is {after.get(name, 'not known')} now"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _flat(settings: Settings) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name in _MAY_DIFFER:
            continue
        for name, each in value.items() if isinstance(value, dict) else [("", value)]:
            flat[f"{field.name}.{name}" if name else field.name] = list(each) if isinstance(each, tuple) else each
    return flat


def section_values(section: Any) -> dict[str, Any]:
    """A configuration section as JSON gives it back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(section).items()}


def remove_folder(folder: Path) -> None:
    """Removes a scratch folder. Retries, since an orphaned worker process may still write into it."""
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
