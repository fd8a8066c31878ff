"""Annotations damaged at random: every reader reports what is wrong, whatever it meets, and nothing else escapes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reserve.cli.finetune import TASKS as FINETUNED
from reserve.cli.zeroshot import TASKS as ZERO_SHOT
from reserve.cli.zeroshot import _task as zero_shot_task
from reserve.errors import BadInput
from reserve.tasks import find_task

ANNOTATIONS = {
    "vcr": ["val.jsonl"],
    "tvqa": ["tvqa_qa_release/tvqa_val.jsonl"],
    "kinetics600": ["kinetics-600_train.csv", "kinetics-600_val.csv"],
    "star": ["STAR_val.json"],
    "epic-kitchens": ["EPIC_100_validation.csv", "actions.csv", "EPIC_100_tail_nouns.csv"],
    "lsmdc": ["LSMDC16_annos_val_FIB.csv", "LSMDC16_annos_training_FIB.csv"],
    "msrvtt-qa": ["val_qa.json", "train_qa.json", "statements.json"],
}
ROUNDS = 30
ODD: list[Any] = [None, True, -1, 10**20, 1e308, float("nan"), "", "\u0000", "🙂" * 50, [], {}, [[]], ["a", 1]]


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """Cuts, repeats, exchanges or overwrites a stretch."""
    start = rng.randrange(len(content))
    stretch = content[start : start + rng.randrange(1, 40)]
    new = rng.choice(
        [b"", stretch * 2, bytes(reversed(stretch)), rng.randbytes(len(stretch)), b"\n", b'"', b",", b"\t"]
    )
    return content[:start] + new + content[start + len(stretch) :]


def damage_field(value: Any, rng: random.Random) -> Any:
    """Replaces or removes something somewhere in parsed JSON."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        if rng.random() < 0.2:
            return {k: v for k, v in value.items() if k != name}
        return value | {name: damage_field(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        index = rng.randrange(len(value))
        return [*value[:index], damage_field(value[index], rng), *value[index + 1 :]]
    return rng.choice(ODD)


def damage(path: Path, rng: random.Random) -> bytes:
    content = path.read_bytes()
    if rng.random() < 0.5 or path.suffix == ".csv":
        return damage_bytes(content, rng)
    if path.suffix == ".jsonl":
        lines = content.splitlines()
        index = rng.randrange(len(lines))
        lines[index] = json.dumps(damage_field(json.loads(lines[index]), rng)).encode()
        return b"\n".join(lines)
    return json.dumps(damage_field(json.loads(content), rng)).encode()


def checker(name: str) -> Callable[[Path], Any]:
    if name in FINETUNED:
        kind: Any = find_task(name)
        return lambda folder: kind(data=folder).check(["val"])
    return lambda folder: zero_shot_task(name)(folder).check_folder()


@pytest.mark.parametrize("name", [*FINETUNED, *ZERO_SHOT])
def test_damage_is_reported(name: str, task_data_sets: Path, tmp_path: Path) -> None:
    folder, check = tmp_path / name, checker(name)
    _mirror(task_data_sets / name, folder)
    for damaged in ANNOTATIONS[name]:
        path = folder / damaged
        whole = path.read_bytes()
        for number in range(ROUNDS):
            rng = random.Random(f"{damaged}/{number}")
            _write(path, damage(path, rng))
            try:
                check(folder)
            except BadInput as error:
                named = path.name in str(error)
            except Exception as error:
                error.add_note(f"{damaged}, damage {number}")
                raise
            else:
                named = True
            assert named, f"{damaged}, damage {number}"
            _write(path, whole)


def _mirror(source: Path, folder: Path) -> None:
    """A copy whose media are links."""
    for path in source.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)


def _write(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)
