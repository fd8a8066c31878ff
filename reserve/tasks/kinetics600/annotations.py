"""Kinetics-600's annotations and clips as they lie on disk (SPEC 10.9)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reserve.data.sources.text_files import read_text
from reserve.errors import BadInput
from reserve.tasks.data_folder import Record, files_below, read_table

SOURCE = "https://github.com/cvdfoundation/kinetics-dataset"
NAMES = ("kinetics-600_{}.csv", "kinetics600_{}.csv", "{}.csv", "annotations/{}.csv")
"""Names of a split's annotation file, in the order in which they are tried."""
LABELS = "labels.txt"
"""File with one label a line, in the order of the classes."""
SUFFIXES = (".mp4", ".mkv", ".webm")
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Clip:
    """A row of an annotation file: the clip's `name`, and its label, None where the split has none."""

    name: str
    label: str | None


def annotation_file(folder: Path, split: str) -> Path:
    """The annotation file of a split. Raises BadInput if the folder has none."""
    for name in NAMES:
        path = folder / name.format(split)
        if path.exists():
            return path
    names = ", ".join(name.format(split) for name in NAMES)
    raise BadInput(f"{folder} has none of {names}: Kinetics-600's annotations of the split {split}, from {SOURCE}")


def read_clips(folder: Path, split: str) -> list[Clip]:
    """The clips of a split. Labels may be absent in the split test. Raises BadInput naming the file and the line."""
    path = annotation_file(folder, split)
    columns = ("youtube_id", "time_start", "time_end")
    rows = read_table(path, columns if split == "test" else ("label", *columns))
    if not rows:
        raise BadInput(f"{path} holds no clip")
    return [_clip(row, labelled=split != "test") for row in rows]


def _clip(row: Record, *, labelled: bool) -> Clip:
    youtube_id = row.text("youtube_id")
    if not _YOUTUBE_ID.fullmatch(youtube_id):
        raise BadInput(f"{row.where}: 'youtube_id' must be letters, digits, - and _; got {youtube_id!r:.40}")
    start, end = (_seconds(row, name) for name in ("time_start", "time_end"))
    label = (row.values.get("label") or "").strip() or None
    if labelled and label is None:
        raise BadInput(f"{row.where} has no 'label'")
    return Clip(f"{youtube_id}_{start:06d}_{end:06d}", label)


def _seconds(row: Record, name: str) -> int:
    seconds = row.number(name)
    if seconds < 0:
        raise BadInput(f"{row.where}: {name!r} must be at least 0; got {seconds:g}")
    return round(seconds)


def label_table(folder: Path) -> list[str]:
    """The classes in order: those of labels.txt where the folder has it, otherwise the training set's, sorted."""
    path = folder / LABELS
    if not path.exists():
        return sorted({clip.label for clip in read_clips(folder, "train") if clip.label is not None})
    try:
        labels = [line.strip() for line in read_text(path).text.splitlines() if line.strip()]
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    if not labels:
        raise BadInput(f"{path} holds no label")
    repeated = {label for label in labels if labels.count(label) > 1}
    if repeated:
        raise BadInput(f"{path} has the label {min(repeated)!r} more than once")
    return labels


def find_clips(folder: Path, split: str) -> dict[str, Path]:
    """The clips on disk by name, wherever they lie below the split's folder: the two layouts of the public downloaders
    are `<split>/NAME.mp4` and `<split>/<label>/NAME.mp4`. One listing of each folder."""
    found: dict[str, Path] = {}
    root = folder / split
    # Sorted, so that of two files of one clip every machine takes the same.
    for name in sorted(files_below(root), key=lambda name: (not name.endswith(SUFFIXES[0]), name)):
        stem, suffix = os.path.splitext(os.path.basename(name))  # Path takes seconds for all of them
        if suffix.lower() in SUFFIXES and stem not in found:
            found[stem] = root / name
    return found


@dataclass(frozen=True)
class SplitClips:
    """The clips of a split that can be used: `paths`, `names` and `labels`, the number of each one's class or -1.
    `notes` count the others."""

    paths: list[Path]
    names: list[str]
    labels: list[int]
    notes: list[str]


def usable_clips(folder: Path, split: str, labels: Sequence[str]) -> SplitClips:
    """The clips of a split that are on disk and have a known label. Raises BadInput if there is none."""
    clips, found = read_clips(folder, split), find_clips(folder, split)
    classes = {label: number for number, label in enumerate(labels)}
    missing = [clip.name for clip in clips if clip.name not in found]
    unknown = {clip.label for clip in clips if clip.label is not None and clip.label not in classes}
    usable = [clip for clip in clips if clip.name in found and (clip.label is None or clip.label in classes)]
    notes = []
    if missing:
        notes.append(
            f"{len(missing)} of {len(clips)} clips of the split {split} are missing below {folder / split} "
            f"({_some(missing)}); get them from {SOURCE}"
        )
    if unknown:
        count = sum(clip.label in unknown for clip in clips)
        notes.append(
            f"{count} of {len(clips)} clips of the split {split} have labels that are not among the {len(classes)} "
            f"classes ({_some(sorted(unknown))})"
        )
    if not usable:
        raise BadInput(f"{folder} has no clip of the split {split} that can be used: " + "; ".join(notes))
    return SplitClips(
        [found[clip.name] for clip in usable],
        [clip.name for clip in usable],
        [-1 if clip.label is None else classes[clip.label] for clip in usable],
        notes,
    )


def _some(names: Sequence[str], shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")
