"""Damaged and hostile sets of shards: verification finds all damage, and readers refuse it and do nothing else."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from reserve.config import TrainConfig
from reserve.data.shards.index import _tables_crc
from reserve.data.shards.layout import MANIFEST, SETTINGS
from reserve.data.shards.manifest import make_manifest
from reserve.data.shards.read import ShardSet
from reserve.data.shards.records import canonical
from reserve.data.shards.verify import verify_shards
from reserve.errors import BadInput
from reserve.report.shard_page import write_shard_page
from reserve.tasks.pretrain.dataset import PretrainDataset
from reserve.tasks.pretrain.shard_sets import part_sets, videos_of
from tests.fuzz.mutations import mutated
from tests.helpers.small_shards import make_shard_set
from tests.helpers.small_stores import DATA, MODEL, tokenizer

Seed = dict[str, bytes]
MAX_SECONDS = 10.0
"""CPU time of a set of a few hundred kilobytes; a tenth of a second is usual."""
MAX_MEMORY = 2**30
"""Bytes that all sets together may add to the process."""
_EXTREMES = (0, 1, -1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 10**30, 10**400)
_TEXTS = ("", "../../escaped", "/tmp/escaped", "a/b", "..", "\0", "shard-00001.tar", "x" * 70_000, "\ud800", "\x1b[2J")
_VALUES: tuple[Any, ...] = (*_EXTREMES, *_TEXTS, None, True, [], {}, [[]], 0.5, float("nan"), float("inf"), -1e308)

_MEMBERS = ("../../escaped", "/tmp/escaped", "shard-00000.tar", "a/" * 60 + "b", "0123456789abcdef-00000.jpg")
_TYPES = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)


@dataclass(frozen=True)
class Case:
    """A set to check: `changed` names the files whose bytes are not those of the seed, unless what says so of them was
    changed to match."""

    files: Seed
    changed: frozenset[str]


@cache
def seeds() -> tuple[Seed, ...]:
    """Small good sets, as bytes by the names of their files."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, videos, segments, sound in (("a", (2, 0, 1), 4, "log_mel"), ("b", (1, 2), 5, "flac")):
            shards = Path(folder) / name
            make_shard_set(shards, videos, segments, sound)  # type: ignore[arg-type]
            found.append({path.name: path.read_bytes() for path in sorted(shards.iterdir())})
            for use in _USES:  # The first use imports much, which counts for no set.
                use(shards)
    return tuple(found)


def damaged_set(rng: np.random.Generator) -> Case:
    """A set with one kind of damage."""
    of = int(rng.integers(len(seeds())))
    files, other = dict(seeds()[of]), seeds()[1 - of]
    kinds: tuple[Callable[[Seed, Seed, np.random.Generator], None], ...] = (_flip, _mutate, _remove, _swap, _add)
    if rng.random() < 0.6:
        kinds[rng.integers(len(kinds))](files, other, rng)
        changed = {name for name in files.keys() | seeds()[of].keys() if files.get(name) != seeds()[of].get(name)}
        return Case(files, frozenset(changed))
    hostile = (_hostile_tar, _hostile_json, _hostile_index, _nested_json)
    hostile[rng.integers(len(hostile))](files, other, rng)
    return Case(files, frozenset())


def _pick(files: Seed, rng: np.random.Generator, ending: str = "") -> str:
    names = sorted(name for name in files if name.endswith(ending))
    return names[rng.integers(len(names))]


def _flip(files: Seed, _: Seed, rng: np.random.Generator) -> None:
    name = _pick(files, rng)
    content = bytearray(files[name])
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    files[name] = bytes(content)


def _mutate(files: Seed, other: Seed, rng: np.random.Generator) -> None:
    name = _pick(files, rng)
    files[name] = mutated(files[name], other.get(name, b"\0"), rng)


def _remove(files: Seed, _: Seed, rng: np.random.Generator) -> None:
    del files[_pick(files, rng)]


def _swap(files: Seed, other: Seed, rng: np.random.Generator) -> None:
    """Puts a file in the place of another, of this set or of one with other settings."""
    ending = ("", ".tar", ".index", ".json")[rng.integers(4)]
    source = other if rng.random() < 0.5 else files
    files[_pick(files, rng, ending)] = source[_pick(source, rng, ending)]


def _add(files: Seed, other: Seed, rng: np.random.Generator) -> None:
    names = ("shard-00009.tar", "shard-99999999999.json", "shard-00001.tar.part", "x", "manifest.json.bak", "é")
    files[names[rng.integers(len(names))]] = other[_pick(other, rng)]


def _hostile_tar(files: Seed, _: Seed, rng: np.random.Generator) -> None:
    """A tar as no shard is, before or behind the samples or instead of them; at times everything else fits it."""
    name = _pick(files, rng, ".tar")
    extra = io.BytesIO()
    formats = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    with tarfile.open(fileobj=extra, mode="w", format=formats[rng.integers(3)]) as tar:
        for member in (
            "../../escaped",
            "/tmp/escaped",
            "shard-00000.tar",
            "a/" * 60 + "b",
            "0123456789abcdef-00000.jpg",
        ):
            info = tarfile.TarInfo(member)
            types = (
                tarfile.REGTYPE,
                tarfile.SYMTYPE,
                tarfile.LNKTYPE,
                tarfile.CHRTYPE,
                tarfile.BLKTYPE,
                tarfile.FIFOTYPE,
            )
            info.type = types[rng.integers(len(types))]
            info.linkname = "/etc/passwd"
            info.size = 5 if info.type == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"bytes"))
        huge = tarfile.TarInfo("huge.jpg")
        huge.size = int(_EXTREMES[rng.integers(3, 6)])
        tar.fileobj.write(huge.tobuf(tarfile.GNU_FORMAT))  # type: ignore[union-attr]
    added, content = extra.getvalue(), files[name]
    place = int(rng.integers(len(content) // 512 + 1)) * 512
    files[name] = (added, added + content, content[:place] + added + content[place:], content + added)[rng.integers(4)]
    if rng.random() < 0.7:
        _make_fit(files, name)


def _hostile_index(files: Seed, _: Seed, rng: np.random.Generator) -> None:
    """An index whose tables say anything, with the checksums to match."""
    name = _pick(files, rng, ".index")
    tables = load(files[name])
    header = json.loads(
        json.loads(files[name][8 : 8 + int.from_bytes(files[name][:8], "little")])["__metadata__"]["index"]
    )
    for _ in range(rng.integers(1, 4)):
        key = sorted(tables)[rng.integers(len(tables))]
        table = tables[key].copy().ravel()
        if table.size and rng.random() < 0.8:
            value = _EXTREMES[rng.integers(7)] if rng.random() < 0.5 else int(rng.integers(100_000))
            table[rng.integers(table.size)] = np.array([value % 2**64], np.uint64).astype(table.dtype)[0]
            tables[key] = table.reshape(tables[key].shape)
        else:
            tables[key] = tables[key][: int(rng.integers(len(tables[key]) + 1))]
    header["tables_crc"] = _tables_crc(tables)
    files[name] = save(tables, metadata={"index": json.dumps(header)})
    if rng.random() < 0.7:
        _make_fit(files, name)


def _hostile_json(files: Seed, _: Seed, rng: np.random.Generator) -> None:
    """JSON in which some value is any other, with the digests to match."""
    name = _pick(files, rng, ".json")
    values = json.loads(files[name])
    for _ in range(rng.integers(1, 3)):
        _replace_value(values, rng)
    files[name] = canonical(values).encode("ascii") if isinstance(values, dict) else b"[]"
    if rng.random() < 0.7:
        _make_fit(files, name)


def _nested_json(files: Seed, _: Seed, rng: np.random.Generator) -> None:
    bombs = (b"[" * 200_000, b'{"a":' * 100_000, b"9" * 100_000, b'{"shards": [' + b"{}," * 50_000 + b"{}]}")
    name = _pick(files, rng, ".json")
    files[name] = bombs[rng.integers(len(bombs))]


def _replace_value(values: Any, rng: np.random.Generator) -> None:
    """Replaces one value somewhere in parsed JSON."""
    while True:
        keys = sorted(values) if isinstance(values, dict) else list(range(len(values)))
        if not keys:
            return
        key = keys[rng.integers(len(keys))]
        if isinstance(values[key], dict | list) and values[key] and rng.random() < 0.9:
            values = values[key]
            continue
        values[key] = _VALUES[rng.integers(len(_VALUES))]
        return


def _make_fit(files: Seed, name: str) -> None:
    """Makes the record and the manifest say of the files what they are, where these can still be read."""
    shard, _, suffix = name.partition(".")
    record_name = f"{shard}.json"
    try:
        if suffix in ("tar", "index"):
            record = json.loads(files[record_name])
            record[suffix] = _described(name, files[name])
            files[record_name] = canonical(record).encode("ascii")
        manifest = json.loads(files[MANIFEST])
        if name == SETTINGS:
            manifest["settings"] = _described(SETTINGS, files[SETTINGS])
        elif name != MANIFEST:
            entry = manifest["shards"][int(shard.rpartition("-")[2])]
            entry["record"] = _described(record_name, files[record_name])
            if suffix in ("tar", "index"):
                entry[suffix] = _described(name, files[name])
        without = {key: value for key, value in manifest.items() if key != "digest"}
        manifest["digest"] = sha256(canonical(without).encode()).hexdigest()
        files[MANIFEST] = canonical(manifest).encode("ascii")
    except (ValueError, KeyError, TypeError, IndexError):
        pass


def _described(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "bytes": len(data), "sha256": sha256(data).hexdigest()}


def check(case: Case, folder: Path) -> int:
    """Uses a set in every way. Returns the number of faults that verification finds; raises AssertionError where
    something but a refusal happens."""
    shards = folder / "sandbox" / "set"
    shards.mkdir(parents=True)
    for name, data in case.files.items():
        (shards / name).write_bytes(data)
    before, start = _tree(folder), time.process_time()
    faults: set[str] = set()
    try:
        verify_shards(shards, workers=0, on_fault=lambda fault: faults.add(fault.file))
    except BadInput:
        faults.add("the set")
    is_unfinished = MANIFEST in case.changed and MANIFEST not in case.files
    assert not case.changed or faults or is_unfinished, f"no fault in {sorted(case.changed)}"
    for use in _USES:
        refusal = _refusal(use, shards)
        assert len(refusal) < 3000, f"a message of {len(refusal)} characters"
    seconds = time.process_time() - start
    assert seconds < MAX_SECONDS, f"{seconds:.1f} s"
    assert _tree(folder) == before, "something was written"
    shutil.rmtree(folder / "sandbox")
    return len(faults)


def _refusal(use: Callable[[Path], None], shards: Path) -> str:
    """Why a set is refused; empty if it is not."""
    try:
        use(shards)
    except BadInput as error:
        return str(error)
    except ValueError as error:
        if "was prepared with data." not in str(error):  # settings that are not those of this run
            raise
        return str(error)
    return ""


def _tree(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_size) for path in folder.rglob("*") if path.is_file())


def _read_all(shards: Path) -> None:
    """Reads every video of every shard, whatever happens to the one before."""
    for part in ShardSet.open(shards).parts:
        try:
            shard = part.open()
        except BadInput:
            continue
        for video in range(len(shard.segment_counts())):
            for read in (shard.load, shard.texts):
                with suppress(BadInput):
                    read(video)


def _train(shards: Path) -> None:
    sets = part_sets([str(shards)], [], DATA, TrainConfig())
    dataset = PretrainDataset(sets, tokenizer(), None, DATA, MODEL)
    for index in range(min(len(dataset), 4)):
        with suppress(BadInput):
            dataset[0, index]
    list(videos_of([ShardSet.open(shards)]))


def _manifest(shards: Path) -> None:
    make_manifest(shards)


def _show(shards: Path) -> None:
    page = shards.parent.parent / "page.html"
    for where in (shards, *sorted(shards.glob("shard-0000*.tar"))):
        with suppress(BadInput):
            write_shard_page(where, page, videos=2, segments=2)
        if page.exists():
            text = page.read_text("utf-8")
            page.unlink()
            assert "<script" not in text
            assert len(text) < 20_000_000


_USES = (_read_all, _train, _manifest, _show)


def use_damaged(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """How many of `count` damaged sets have faults and how many have none. The files of one that fails stay in
    `folder`."""
    rng = np.random.default_rng(seed)
    seeds()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faulty = 0
    for index in range(count):
        place = folder / f"{seed}-{index}"
        try:
            faulty += check(damaged_set(rng), place) > 0
        except Exception as error:
            raise AssertionError(f"{place}: {type(error).__name__}: {error}") from error
        shutil.rmtree(place)
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert used < MAX_MEMORY, f"{used} bytes more than before"
    return faulty, count - faulty


def fuzz(seconds: float, seed: int) -> int:
    """Uses damaged sets for `seconds`; returns how many. A failing one stays on disk."""
    end, done = time.monotonic() + seconds, 0
    folder = Path(tempfile.mkdtemp(prefix="fuzz-shards-"))
    while time.monotonic() < end:
        use_damaged(folder, 100, seed + done)
        done += 100
    os.rmdir(folder)
    return done
