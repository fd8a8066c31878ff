"""docs/twenty_million.md: what shards cost, measured, and projected to 20 million videos. Every number is computed."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.report.results import RESULTS
from benchmarks.report.tables import size
from benchmarks.shards import limits, loading, memory, preparing
from benchmarks.shards.preparing import STAGES
from reserve.data.shards.records import FileRecord, ShardEntry, canonical
from reserve.tasks.pretrain.planned_parts import MAX_OPEN
from reserve_kernels.bench.report import duration, markdown

VIDEOS = 20_000_000
SEGMENTS_A_VIDEO = 50
"""YT-Temporal-1B: 20 million videos with over a billion frames (Zellers et al., 2022)."""
FILES_TIB = 600
"""20 million videos as files."""
SEGMENTS_AN_EXAMPLE = 16
BYTES = ("pictures", "sound", "text", "framing", "index", "record")
VIDEOS_A_SHARD = 256
DOLLARS_A_CORE_HOUR = 0.04
DOLLARS_A_GB_MONTH = 0.02
CORES = 1024
BAR = 5
"""Examples/s of loading from shards, over those straight from video."""
WIDTH = 120
TABLE_BYTES = 32
"""Of a segment, in its shard's index: where it begins, its CRC-32, the sizes of its files, where its words begin."""
HEAD = """# Twenty million videos

What shards cost to make, to keep and to train from, and what breaks first. `make bench-report` writes this page from
[benchmarks/shards](../benchmarks/shards) and [benchmarks/results](../benchmarks/results); `make shards-bench` measures
it anew on this machine. [shards.md](shards.md) says how to use shards.
"""
NOT_MEASURED = HEAD + "\nNot measured yet.\n"


@dataclass(frozen=True)
class Results:
    """Everything measured on one machine."""

    machine: str
    preparing: Mapping[str, Any]
    loading: Mapping[str, Any]
    limits: Mapping[str, Any]
    memory: Mapping[str, Any]

    @property
    def segments_a_video(self) -> float:
        found = self.preparing["sizes"]["log_mel"]
        return found["segments"] / found["videos"]

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds of one core for each segment."""
        return {
            stage: spent / self.preparing["by_stage"]["segments"]
            for stage, spent in self.preparing["by_stage"]["stages"].items()
        }


def stored(folder: Path = RESULTS) -> Results | None:
    """The results of the machine on which all was measured."""
    names = (preparing.FILE, loading.FILE, limits.FILE, memory.FILE)
    for machine in sorted(folder.iterdir()):
        paths = [machine / name for name in names]
        if all(path.exists() for path in paths):
            found = Results(machine.name, *(json.loads(path.read_text("utf-8")) for path in paths))
            if set(preparing.PARTS) <= found.preparing.keys():
                return found
    return None


def page(results: Results | None) -> str:
    """The page's text."""
    if results is None:
        return NOT_MEASURED
    sections = (_summary, _bytes, _stages, _processes, _memory, _training, _breaks, _assumptions)
    return HEAD + "\n" + _wrapped("\n".join(section(results) for section in sections))


def _wrapped(text: str) -> str:
    """`text` with its paragraphs and list entries in lines of WIDTH characters."""
    return "\n\n".join(map(_wrapped_part, text.rstrip().split("\n\n"))) + "\n"


def _wrapped_part(part: str) -> str:
    if part.startswith(("|", "#")):
        return part
    entries = re.split(r"\n(?=(?:-|\d+\.) )", part)
    return "\n".join(
        fill(
            " ".join(entry.split()),
            WIDTH,
            subsequent_indent=" " * (match.end() if (match := re.match(r"- |\d+\. ", entry)) else 0),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for entry in entries
    )


def bytes_of(results: Results, sound: str) -> dict[str, float]:
    """Bytes a segment, by what they are for."""
    found = results.preparing["sizes"][sound]
    return {name: found[name] / found["segments"] for name in BYTES}


def _tib(results: Results, sound: str) -> float:
    return sum(bytes_of(results, sound).values()) * VIDEOS * SEGMENTS_A_VIDEO / 2**40


def _core_hours(a_segment: float) -> float:
    return a_segment * VIDEOS * SEGMENTS_A_VIDEO / 3600


def _dollars(value: float) -> str:
    return f"{value:,.0f} USD"


def _summary(results: Results) -> str:
    hours = _core_hours(sum(results.stage_seconds.values()))
    rows = [
        ("storage as log-mel shards", f"{_tib(results, 'log_mel'):.0f} TiB", _storage_cost(results, "log_mel")),
        ("storage as FLAC shards", f"{_tib(results, 'flac'):.0f} TiB", _storage_cost(results, "flac")),
        (
            "preparation",
            f"{hours:,.0f} core hours: {hours / CORES:.0f} hours on {CORES} cores",
            _dollars(hours * DOLLARS_A_CORE_HOUR),
        ),
    ]
    files = FILES_TIB * 2**40 / 1e9 * DOLLARS_A_GB_MONTH
    rows.insert(0, ("the videos as files", f"about {FILES_TIB} TiB", f"{_dollars(files)} a month"))
    return f"""## In short

20 million videos of {SEGMENTS_A_VIDEO} segments, projected from {results.preparing["sizes"]["videos"]} synthetic
narrated videos ({results.machine}). [What this assumes](#what-this-assumes).

{markdown(("", "amount", "cost"), rows)}
"""


def _storage_cost(results: Results, sound: str) -> str:
    return f"{_dollars(_tib(results, sound) * 2**40 / 1e9 * DOLLARS_A_GB_MONTH)} a month"


def _bytes(results: Results) -> str:
    sizes = results.preparing["sizes"]
    columns = {sound: bytes_of(results, sound) for sound in ("log_mel", "flac")}
    rows: list[tuple[object, ...]] = [(name, *(size(column[name]) for column in columns.values())) for name in BYTES]
    totals = {sound: sum(column.values()) for sound, column in columns.items()}
    rows += [
        ("**a segment**", *(f"**{size(total)}**" for total in totals.values())),
        ("an example of 16 segments", *(size(total * SEGMENTS_AN_EXAMPLE) for total in totals.values())),
        (f"all {sizes['videos']} videos", *(size(total * sizes["log_mel"]["segments"]) for total in totals.values())),
        ("20 million videos", *(f"{_tib(results, sound):.0f} TiB" for sound in totals)),
    ]
    return f"""## Bytes

{sizes["videos"]} videos of {sizes["log_mel"]["seconds"] / sizes["videos"]:.0f} s, {size(sizes["source_bytes"])} as
H.264 files, have {sizes["log_mel"]["segments"]} segments. {_skipped(sizes["log_mel"]["skipped"])}
"Framing" is what a tar adds.

{markdown(("bytes of", "log-mel", "FLAC"), rows)}

The pictures are drawings. A photograph (the portrait of Grace Hopper that comes with matplotlib) takes
{size(sizes["photograph_bytes"])} in the format of stored frames; with such frames, 20 million videos take
{_photograph_tib(results):.0f} TiB as log-mel shards.
"""


def _skipped(counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{count} as {name}" for name, count in counts.items())
    return f"Skipped were {listed}." if listed else "None is skipped by a filter."


def _photograph_tib(results: Results) -> float:
    a_segment = bytes_of(results, "log_mel") | {"pictures": results.preparing["sizes"]["photograph_bytes"]}
    return sum(a_segment.values()) * VIDEOS * SEGMENTS_A_VIDEO / 2**40


def _stages(results: Results) -> str:
    found = results.preparing["by_stage"]
    spent = results.stage_seconds
    total = sum(spent.values())
    rows = [
        (
            name,
            meaning,
            duration(found["stages"][name]),
            f"{spent[name] / total:.0%}",
            f"{_core_hours(spent[name]):,.0f}",
            _dollars(_core_hours(spent[name]) * DOLLARS_A_CORE_HOUR),
        )
        for name, meaning in STAGES.items()
    ]
    hours = _core_hours(total)
    rows.append(
        (
            "**all**",
            "",
            f"**{duration(sum(found['stages'].values()))}**",
            "",
            f"**{hours:,.0f}**",
            f"**{_dollars(hours * DOLLARS_A_CORE_HOUR)}**",
        )
    )
    head = ("stage", "what it does", "a video here", "share", "core hours, 20 million", "cost")
    return f"""## Preparation by stage

Means of {found["videos"]} videos of {found["video_seconds"]:.0f} s with {found["segments"]:.1f} segments, 640x360 in
H.264, one process with one thread.

{markdown(head, rows)}
"""


def _processes(results: Results) -> str:
    found = results.preparing["by_processes"]
    one = found["seconds"]["1"]
    rows = [
        (workers, f"{found['videos'] / spent:.2f}", f"{one / spent:.2f}") for workers, spent in found["seconds"].items()
    ]
    return f"""## Preparation by processes

`reserve prepare` on {found["videos"]} videos, from start to end: start-up of the processes, duplicates and manifest
included. Medians of {found["rounds"]} rounds on 2 cores.

{markdown(("processes", "videos/s", "against one"), rows)}

More processes than cores gain nothing. The command itself takes some of a core: it packs shards while videos are
prepared.
"""


def _memory(results: Results) -> str:
    peaks = sorted((float(minutes), peak) for minutes, peak in results.memory["peak_bytes"].items())
    rows = [(f"{minutes:g} minutes", size(peak)) for minutes, peak in peaks]
    return f"""## Memory by the length of a video

What a preparing process of `reserve prepare` has in use at most, Python and its libraries included, for a video of
640x360. Sound and frames of a long video wait on disk.

{markdown(("length of the video", "memory"), rows)}
"""


def _training(results: Results) -> str:
    found = results.loading
    columns: dict[str, Mapping[str, Sequence[float]]] = {
        "loading, one process": found["loading"]["0"],
        "loading, two processes": found["loading"]["2"],
        **{f"training, {model} model": found["training"][model] for model in loading.MODELS},
    }
    rows = [
        (
            way,
            *(
                f"{statistics.median(rates[way]):.1f} ({_ratio(rates, way, loading.VIDEO):.1f}x)"
                for rates in columns.values()
            ),
        )
        for way in loading.WAYS
    ]
    head = ("examples/s", *columns)
    gains = [_ratio(rates, loading.SHARDS, loading.VIDEO) for rates in found["loading"].values()]
    fair = [_ratio(rates, loading.SHARDS, loading.SAME) for rates in columns.values()]
    core = statistics.median(found["loading"]["0"][loading.SHARDS])
    read = core * SEGMENTS_AN_EXAMPLE * sum(bytes_of(results, "log_mel").values())
    h100 = _h100_rate()
    return f"""## Loading and training

{found["videos"]} videos, {found["examples"]} examples; medians over {found["rounds"]}
round{"s" if found["rounds"] > 1 else ""} of the rates and of their ratios. Loading makes examples of 16 segments for
the base model and does nothing else. Training is on 2 cores with two loading processes, examples of 8 segments: of the
demo's model, and of a smaller one (hidden size 64, one layer each). Straight from video, frames and sound are decoded
whenever an example is used. In the first row the segments are known beforehand and loudness is not normalised, which
favours it. In the second, words are read, segments cut and loudness normalised by the track's peak each time, which
takes all of its sound: the same segments, words and sound that shards have. Its pictures are neither trimmed nor
compressed, which favours it.

{markdown(head, rows)}

The bar is {BAR:g}x straight from video. Loading from shards gives {gains[0]:.1f}x with one process and {gains[1]:.1f}x
with two: {"met" if min(gains) >= BAR else "**missed**"}. With the same sound and words it is {fair[0]:.1f}x and
{fair[1]:.1f}x. Training gains less on two cores, since the model's own step runs on them too: {fair[2]:.1f}x and
{fair[3]:.1f}x with the same sound and words.

One core loads {core:.1f} examples/s from shards, {size(read)}/s. An H100 that trains the base model takes {h100:.0f}
examples/s ([benchmarks](benchmarks.md)): {math.ceil(h100 / core)} cores like these feed it.
"""


def _ratio(rates: Mapping[str, Sequence[float]], ours: str, theirs: str) -> float:
    """The median over the rounds of the ratio of two rates."""
    return statistics.median(a / b for a, b in zip(rates[ours], rates[theirs], strict=True))


def _h100_rate() -> float:
    """Examples/s of the measured training step."""
    step = json.loads((RESULTS / "nvidia-h100-80gb" / "step.json").read_text("utf-8"))
    ours = [variant["seconds"] for name, variant in step["variants"].items() if name.startswith("ours")]
    return step["facts"]["examples"] / min(map(statistics.median, ours))


def _breaks(results: Results) -> str:
    scaled = {
        name: (
            results.limits[name]["seconds"] / results.limits[name]["count"],
            results.limits[name]["bytes"] / results.limits[name]["count"],
        )
        for name in ("listing", "duplicates", "order")
    }
    examples = VIDEOS * SEGMENTS_A_VIDEO // SEGMENTS_AN_EXAMPLE
    shards = VIDEOS // VIDEOS_A_SHARD
    listing, listed = (each * VIDEOS for each in scaled["listing"])
    compare, compared = (each * VIDEOS for each in scaled["duplicates"])
    order, ordered = (each * examples for each in scaled["order"])
    hours = _core_hours(sum(results.stage_seconds.values()))
    index = bytes_of(results, "log_mel")["index"] * VIDEOS * SEGMENTS_A_VIDEO
    rows = [
        ("listing the files, in every worker", f"{listing / 3600:.1f} h", size(listed)),
        ("comparing signatures, once", f"{compare / 60:.1f} min", size(compared)),
        ("the order of an epoch, in every rank", f"{order:.0f} s", size(ordered)),
    ]
    read = hours / CORES * 3600
    a_segment = sum(bytes_of(results, "log_mel").values())
    shard = a_segment * VIDEOS_A_SHARD * SEGMENTS_A_VIDEO
    tables = TABLE_BYTES * VIDEOS_A_SHARD * SEGMENTS_A_VIDEO
    example = a_segment * SEGMENTS_AN_EXAMPLE
    return f"""## What breaks first

In the order in which it hurts:

1. **Reading the videos.** {CORES} cores that prepare for {hours / CORES:.0f} hours read {FILES_TIB} TiB at
   {FILES_TIB * 2**40 / 1e9 / read:.0f} GB/s: fewer cores, or copies of the videos where the cores are.
2. **Listing.** Every worker lists all files: {listing / 3600:.1f} hours and {size(listed)} of memory. Prepare folders
   of a million videos or so into sets of their own ({listing / 20 / 60:.0f} minutes, {size(listed / 20)}), and mix the
   sets with `--shards a b …`. Duplicates are then found within each set only.
3. **The caches of a remote set.** Examples come in random order over the whole set, so a cache smaller than the set
   helps no more than its share of it. An example is one request; the {shards:,} indexes are {size(index)} in all, which
   `train.shard_cache_gb` should hold.
4. **Indexes.** A process keeps {MAX_OPEN} shards open, so nearly every example reads the tables of another index:
   {size(tables)} beside the {size(example)} of its samples. Larger shards make it worse.
5. **Memory of a rank.** The order of {examples / 1e6:.1f} million examples takes {size(ordered)} while it is drawn.

{markdown(("20 million videos", "time", "memory"), rows)}

What does not break: {shards:,} shards of {size(shard)} are {3 * shards:,} files, and the manifest has some
{size(_manifest_bytes() * shards)}.
"""


def _manifest_bytes() -> int:
    """Bytes that a shard takes in the manifest."""
    file = FileRecord("shard-12345.index", 10**8, "0" * 64)
    entry = ShardEntry(12345, VIDEOS_A_SHARD, 10**4, 10**5, 123456.789, 10, file, file, file)
    return len(canonical(asdict(entry)))


def _assumptions(results: Results) -> str:
    return f"""## What this assumes

- A video has {SEGMENTS_A_VIDEO} segments: YT-Temporal-1B has 20 million videos and over a billion frames
  ([Zellers et al.](https://arxiv.org/abs/2201.02639)). As files they take about {FILES_TIB} TiB.
- Time and bytes grow with the number of segments. Larger pictures, other codecs and longer pauses cost more: the
  videos measured are synthetic, 640x360, H.264 at a low rate. Measure some of yours with
  `python -m benchmarks.shards.preparing --videos FOLDER`.
- Cores are like those of the machine measured ({results.machine}).
- Prices are round numbers, to scale by your own: {DOLLARS_A_CORE_HOUR} USD a core hour, {DOLLARS_A_GB_MONTH} USD a GB
  and month. Traffic and requests are not in them.
"""
