"""A run's config.yaml: its settings and where its data is, for people, for going on with it and for evaluating it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reserve.config import SECTIONS, Config
from reserve.config_values import build_section, read_yaml
from reserve.model.atomic import replacing

NAME = "config.yaml"


@dataclass(frozen=True)
class RunFiles:
    """Where a run's data comes from and where it writes.

    `videos` files and folders; `out` the run's folder; `random_text` a text or JSONL file (also .zst), None for the
    transcripts of other videos; `tokenizer` a `tokenizers` JSON in the released layout, None for the shipped one.
    """

    videos: Sequence[str]
    out: Path
    random_text: Path | None = None
    tokenizer: Path | None = None


def write_run_config(files: RunFiles, config: Config) -> None:
    """Writes `files.out`/config.yaml, a configuration file like any other.

    Paths are absolute, so that the run can be gone on with from any folder. `files.out` is left out: the run is where
    the file is, also after it was moved or copied.
    """
    import yaml

    def absolute(path: Path | None) -> str | None:
        return None if path is None else os.path.abspath(path)

    settings: dict[str, Any] = {"videos": [os.path.abspath(video) for video in files.videos]}
    settings |= {"random_text": absolute(files.random_text), "tokenizer": absolute(files.tokenizer)}
    for name in SECTIONS:
        section = asdict(getattr(config, name))
        settings[name] = {key: list(value) if isinstance(value, tuple) else value for key, value in section.items()}
    files.out.mkdir(parents=True, exist_ok=True)
    with replacing(files.out / NAME) as temporary:
        temporary.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")


def read_run_config(run: Path) -> tuple[Config, RunFiles]:
    """The settings in a run's config.yaml. Raises ValueError where `run` has none, or naming what is wrong in it."""
    path = run / NAME
    if not path.is_file():
        raise ValueError(f"{run} is not a run's folder: it has no {NAME}")
    settings = read_yaml(path)
    missing = [name for name in SECTIONS if name not in settings]
    if missing:
        raise ValueError(f"{path} lacks the section {missing[0]}")
    sections: dict[str, Any] = {
        name: build_section(kind, settings[name], f"{path}: {name}") for name, kind in SECTIONS.items()
    }
    videos = settings.get("videos", [])
    if not isinstance(videos, list) or not all(isinstance(video, str) for video in videos):
        raise ValueError(f"{path}: videos must be a list of paths; got {videos!r:.80}")
    return Config(**sections), RunFiles(
        videos, run, _path(settings, "random_text", path), _path(settings, "tokenizer", path)
    )


def _path(settings: Mapping[str, Any], name: str, file: Path) -> Path | None:
    value = settings.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{file}: {name} must be a path; got {value!r:.80}")
    return None if value is None else Path(value)
