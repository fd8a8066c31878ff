"""Examples/s of loading and of training: from shards, from store files, and straight from video.

Straight from video is what one does without any preparation: each time an example is used, its frames and its sound are
decoded from the files. The segments, the words and the plan of the examples are known beforehand there, and the
sound is not divided by the peak of its track, which would mean decoding all of it: both favour it. A second way does
both, and so has the segments, words and sound that shards have; its pictures are neither trimmed nor compressed.

`python -m benchmarks.shards.loading --videos FOLDER --save` stores the result in benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks.shards.preparing import prepare, store_result
from reserve.config import SECTIONS, Config, DataConfig, ModelConfig, TrainConfig
from reserve.config.load import config_file, read_settings
from reserve.data.collection import PartSet, StoreFiles
from reserve.data.decode import choose_file_decoder
from reserve.data.loader import BatchSampler, load_batches
from reserve.data.prepare import prepare_stores, recorded_stores
from reserve.data.prepare.segments import SegmentSound, cut_windows, video_rng, window_words
from reserve.data.prepare.words import find_words
from reserve.data.segment_sound import clip_length, log_mels
from reserve.data.shards.read import ShardSet
from reserve.data.sources.discover import VideoSource, discover_sources
from reserve.data.sources.tracks import choose_audio_track
from reserve.data.tokenizer import Tokenizer
from reserve.data.types import Segments
from reserve.tasks.pretrain.dataset import PretrainDataset, collate
from reserve.tasks.pretrain.task import Pretrain
from reserve.train.fit import fit

FILE = "shards_loading.json"
VIDEO, SAME, STORES = "straight from video", "straight from video, same sound and words", "store files"
SHARDS, FLAC = "shards", "shards with FLAC"
WAYS = (VIDEO, SAME, STORES, SHARDS, FLAC)
SMALLEST, DEMO = "smallest", "demo"
MODELS = (SMALLEST, DEMO)


@dataclass(frozen=True)
class VideoFiles:
    """Videos whose segments are decoded whenever they are asked for. `stores` say which segments a video has."""

    videos: tuple[VideoSource, ...]
    stores: StoreFiles
    data: DataConfig

    name = "videos"

    @property
    def num_segments(self) -> int:
        return self.stores.num_segments

    def open(self) -> Self:
        return self

    def segment_counts(self) -> Sequence[int]:
        return self.stores.segment_counts()

    def texts(self, video: int) -> list[str]:
        return self.stores.texts(video)

    def naming(self, _video: int) -> AbstractContextManager[None]:
        return nullcontext()

    def load(self, video: int, start: int, stop: int) -> Segments:
        known = self.stores.load(video, start, stop)
        rate = self.data.sample_rate
        speeds = known.playback_speed.tolist()
        lengths = [clip_length(speed, rate) for speed in speeds]
        middles = known.start + np.array(lengths) / rate / 2
        with choose_file_decoder().open(self.videos[video].path) as media:
            frames: Any = list(media.frames(middles.tolist()))
            begin = float(known.start[0])
            sound = media.sound(begin, float(known.start[-1]) + lengths[-1] / rate, sample_rate=rate)
        places = [round((float(each) - begin) * rate) for each in known.start]

        def clip(index: int) -> np.ndarray:
            heard = sound[places[index] : places[index] + lengths[index]]
            return np.pad(heard, (0, lengths[index] - len(heard)))

        return replace(known, frames=frames, log_mel=log_mels(clip, speeds, self.data))


class WholeVideoFiles(VideoFiles):
    """VideoFiles whose segments are cut each time, and their sound is divided by the peak of the track, as preparation
    does."""

    def load(self, video: int, start: int, stop: int) -> Segments:
        source, data = self.videos[video], self.data
        with choose_file_decoder().open(source.path) as media:
            track = choose_audio_track(media.info.audio, data.languages)
            soundtrack = media.soundtrack(track=track, sample_rate=data.sample_rate)
            words = find_words(source, media, track, soundtrack.media_end, data.languages)[0]
            windows = cut_windows(words, soundtrack.media_end, video_rng(0, source.video_id))[start:stop]
            frames: Any = list(media.frames([(window.start + window.end) / 2 for window in windows]))
        return replace(
            self.stores.load(video, start, stop),
            start=np.array([window.start for window in windows]),
            playback_speed=np.array([window.playback_speed for window in windows], np.int32),
            words=[window_words(words, window) for window in windows],
            frames=frames,
            log_mel=SegmentSound.of(soundtrack, windows, data.sample_rate).log_mels(data),
        )


class VideoDataset(PretrainDataset):
    """Examples whose frames are decoded already."""

    def _images(self, _collection: Any, _video: int, segments: Segments, rng: np.random.Generator) -> list[np.ndarray]:
        return [self._image(np.asarray(frame), rng) for frame in segments.frames]


@dataclass(frozen=True)
class Ready:
    """Videos prepared in every way."""

    videos: tuple[VideoSource, ...]
    stores: tuple[Path, ...]
    shards: Path
    flac: Path

    @classmethod
    def of(cls, folder: Path, count: int, out: Path) -> Ready:
        """Prepares the first `count` videos below `folder`, none of which may be refused."""
        sources = discover_sources([folder])[:count]
        paths = [source.path for source in sources]
        prepare_stores(paths, out / "stores", DataConfig(), workers=2, seed=0, audio_track=None)
        linked = out / "videos"
        linked.mkdir()
        for source in sources:
            for file in (source.path, *source.transcripts, *([source.info] if source.info else [])):
                (linked / file.name).symlink_to(file)
        prepare(linked, out / "shards", 2)
        prepare(linked, out / "flac", 2, "flac")
        return cls(tuple(sources), tuple(recorded_stores(out / "stores")), out / "shards", out / "flac")

    def dataset(self, way: str, data: DataConfig, model: ModelConfig, seed: int) -> PretrainDataset:
        kind = PretrainDataset
        if way in (VIDEO, SAME):
            kind = VideoDataset
            files = (VideoFiles if way == VIDEO else WholeVideoFiles)(self.videos, StoreFiles(self.stores), data)
            sets = PartSet("videos", [files], len(self.videos))
        elif way == STORES:
            sets = PartSet.of_stores(self.stores)
        else:
            found = ShardSet.open(self.flac if way == FLAC else self.shards)
            sets = PartSet(way, found.parts, found.manifest.videos)
        return kind([sets], Tokenizer.load(), None, data, model, seed=seed)


@dataclass(frozen=True)
class ReadyPretrain(Pretrain):
    """Pretraining on what is prepared already."""

    make: Callable[[int], PretrainDataset] | None = None

    def prepare(self, run: Path, config: TrainConfig) -> None: ...

    def training_set(self, run: Path, config: TrainConfig) -> PretrainDataset:
        assert self.make is not None
        return self.make(config.seed)

    def settings(self) -> dict[str, Any]:
        return {name: value for name, value in super().settings().items() if name != "make"}


def loading_rate(dataset: PretrainDataset, workers: int, batch_size: int, batches: int) -> float:
    """Examples/s of the loader alone, once its processes run."""
    pack = partial(collate, data=dataset.data, model=dataset.model)
    loaded = load_batches(dataset, BatchSampler(dataset.shares, batch_size), pack, num_workers=workers)
    for _ in range(2 * max(workers, 1)):
        next(loaded)
    start = time.perf_counter()
    for _ in range(batches):
        next(loaded)
    return batches * batch_size / (time.perf_counter() - start)


def training_rate(ready: Ready, way: str, model: str, steps: int) -> float:
    """Examples/s of training the demo's model, or a smallest one, after the first quarter of the steps: their batches
    are loaded while the model is made."""
    config = Config(**read_settings([config_file("tiny")], SECTIONS, {}))
    if model == SMALLEST:
        layers: dict[str, Any] = dict.fromkeys(
            ("vit_num_layers", "audio_num_layers", "span_num_layers", "joint_num_layers"), 1
        )
        config = replace(config, model=replace(config.model, hidden_size=64, **layers))
    train = replace(config.train, log_every=1, num_workers=2, checkpoint_every=steps, async_checkpoints=False)
    optimizer = replace(config.optimizer, num_train_steps=steps, num_warmup_steps=0)
    config = replace(config, train=train, optimizer=optimizer)
    make = partial(_dataset, ready, way, config.data, config.model)
    task = ReadyPretrain(data=config.data, model=config.model, make=make)
    with tempfile.TemporaryDirectory() as run:
        fit(task, Path(run), config)
        lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    # Not the median: two processes finish their batches at about the same time, so every other step need not wait.
    return statistics.harmonic_mean(line["examples_per_second"] for line in lines[len(lines) // 4 :])


def _dataset(ready: Ready, way: str, data: DataConfig, model: ModelConfig, seed: int) -> PretrainDataset:
    return ready.dataset(way, data, model, seed)


def measure(ready: Ready, rounds: int, batches: int, steps: int) -> dict[str, Any]:
    """The rates of each round. In a round, all ways of one column are measured one after the other, so that what slows
    the machine for minutes slows them all."""
    loading: dict[str, dict[str, list[float]]] = {str(workers): defaultdict(list) for workers in (0, 2)}
    training: dict[str, dict[str, list[float]]] = {model: defaultdict(list) for model in MODELS}
    for turn in range(rounds):
        ways = WAYS[turn % len(WAYS) :] + WAYS[: turn % len(WAYS)]
        for workers, rows in loading.items():
            for way in ways:
                dataset = ready.dataset(way, DataConfig(), ModelConfig(), turn)
                rows[way].append(loading_rate(dataset, int(workers), 4, batches))
        for model, rows in training.items():
            for way in ways:
                rows[way].append(training_rate(ready, way, model, steps))
        print(json.dumps({"loading": loading, "training": training}), flush=True)
    return {
        "videos": len(ready.videos),
        "rounds": rounds,
        "examples": len(ready.dataset(SHARDS, DataConfig(), ModelConfig(), 0)),
        "loading": loading,
        "training": training,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards.loading", description=__doc__)
    parser.add_argument(
        "--videos", type=Path, required=True, help="a folder of videos, such as `reserve demo-data` makes"
    )
    parser.add_argument("--count", type=int, default=48, help="how many of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=8, help="batches of 4 examples of 16 segments, a round")
    parser.add_argument("--steps", type=int, default=16, help="training steps of each model, a round")
    parser.add_argument("--save", action="store_true", help="store the result in benchmarks/results/MACHINE")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        ready = Ready.of(options.videos, options.count, Path(folder))
        result = measure(ready, options.rounds, options.batches, options.steps)
    print(json.dumps(result, indent=1))
    if options.save:
        store_result(FILE, result)


if __name__ == "__main__":
    main()
