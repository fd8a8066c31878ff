"""An index of moments: a folder of vectors, and exact search over them by text or by sound."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from reserve.batch.vocabulary import PAD
from reserve.config import SEGMENT_SECONDS
from reserve.data.decode import MediaLimits
from reserve.data.sound_file import read_sound
from reserve.data.tokenizer import Tokenizer
from reserve.data.video_sound import SAMPLE_RATE, TimeSpan, segment_clips
from reserve.errors import BadInput
from reserve.fs import check_regular_file, write_text_atomic
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.search.engine import load_faiss
from reserve.tasks.search.parts import FORMAT, SUFFIX, Moments, PartHeader, read_header, read_part
from reserve.tasks.search.sources import SHORTEST, subsegment_times
from reserve.tasks.zero_shot.encoding import encode_heard
from reserve.tasks.zero_shot.readout import encode_options

logger = logging.getLogger(__name__)

MANIFEST = "index.json"
PARTS = "parts"
GAP = 5.0
"""Seconds between two moments of a video that are two results: a segment's length."""
_FETCHED = 16
# Neighbours fetched at first for each result asked for are suppressed in most searches.
_SAMPLED = 1024
# Values of each weight that a model is recognised by.

Kind = Literal["text", "sounds"]
"""What a query is: a text, compared with both vectors of a moment, or sounds, compared with its sound alone."""


@dataclass(frozen=True)
class Moment:
    """A stretch of a video from `start` to `end` seconds, found with `score` in [-1, 1]: a cosine, or the mean of two.

    `video` is the path of a file, or the id of a video in the set of shards `place`.
    """

    video: str
    start: float
    end: float
    score: float
    place: str = ""

    def to_json(self) -> dict[str, Any]:
        """The moment as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Loaded:
    """The vectors of one kind in memory: a faiss index over the rows of all parts, and what they are moments of.

    `part`, `video` int32 [rows]; `start`, `end` float64 [rows].
    """

    vectors: Any
    part: np.ndarray
    video: np.ndarray
    start: np.ndarray
    end: np.ndarray


class MomentIndex:
    """The moments of the videos that `build_index` has encoded into a folder. `MomentIndex.open` reads one.

    The search is exact: faiss compares a query with the vector of every moment, in float16. At the first search by
    text, and at the first by sound, these are read into memory, each time 1.5 GB for a million moments of 768 numbers,
    some 460 hours of video. Beyond ten million or so, an approximate index would be the better choice. `search_text`
    and `search_sound` raise ValueError for a model that the index was not made by.
    """

    def __init__(self, folder: Path, model: str, hidden: int, parts: dict[Path, PartHeader]) -> None:
        self.folder, self.model, self.hidden = folder, model, hidden
        self._parts, self._headers = parts, list(parts.values())
        self._loaded: dict[Kind, _Loaded] = {}

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> MomentIndex:
        """Reads what an index holds, without its vectors. Raises BadInput naming a file that is missing or damaged."""
        folder = Path(folder)
        model, hidden = read_manifest(folder)
        parts = {path: read_header(path) for path in part_files(folder)}
        for path, header in parts.items():
            if header.model != model:
                raise BadInput(f"{path} was made by another model than {folder / MANIFEST} says; delete it")
        return cls(folder, model, hidden, parts)

    def __len__(self) -> int:
        """The number of moments."""
        return sum(header.moments for header in self._parts.values())

    @property
    def num_sounds(self) -> int:
        """The number of moments that have sound."""
        return sum(header.sounds for header in self._parts.values())

    @property
    def videos(self) -> list[str]:
        """The videos: paths of files, and ids of videos in shards."""
        return [video for header in self._parts.values() for video in header.videos]

    def search_text(
        self,
        text: str,
        k: int = 10,
        *,
        model: MerlotReserve,
        tokenizer: Tokenizer | None = None,
        gap: float = GAP,
    ) -> list[Moment]:
        """The `k` moments where words like `text` fit best, best first.

        The score is the mean of two cosines of the text: with what the model expects to be said there, judging by the
        frames and the sound around, and with the moment's own sound, speech included. A moment without sound counts as
        one of average sound; in an index without any the first cosine is the score.

        Moments of one video that begin less than `gap` seconds apart count as one, the best. The model reads 15 tokens
        of the text; more are cut, with a warning. `tokenizer` is the model's vocabulary, by default this package's.
        Raises ValueError for a text without words, and BadInput for a damaged part.
        """
        self.check_model(model)
        tokenizer = tokenizer or Tokenizer.load()
        length = model.config.text_span_length
        encoded = tokenizer.encode_plain(" ".join(text.split()))
        if not encoded:
            raise ValueError(f"the text to search for must have words; got {text!r:.80}")
        if len(encoded) > length:
            kept = tokenizer.decode(encoded[:length]).strip()
            logger.warning("the text has %d tokens; the model reads the first %d: %r", len(encoded), length, kept)
        ids = np.full((1, length), PAD, np.int32)
        ids[0, : len(encoded)] = encoded[:length]
        vector = encode_options(model, ids)
        return self.search_vector("text", vector[0].cpu().numpy(), k, gap=gap)

    def search_sound(
        self,
        path: str | os.PathLike[str],
        start: float = 0.0,
        stop: float | None = None,
        k: int = 10,
        *,
        model: MerlotReserve,
        gap: float = GAP,
    ) -> list[Moment]:
        """The `k` moments that sound most like a sound or video file from `start` to `stop` seconds, best first.

        The query is the mean of the unit vectors of its subsegments, so it should be short, of one sound: a few
        seconds. `gap` is as in `search_text`. Raises BadInput for a file without sound that can be decoded or that ends
        before `start`, or a damaged part, and ValueError where no moment of the index has sound.
        """
        self.check_model(model)
        if not self.num_sounds:
            raise ValueError(f"{self.folder}: none of its videos has sound to compare with")
        return self.search_vector("sounds", sound_vector(path, start, stop, model), k, gap=gap)

    def check_model(self, model: MerlotReserve) -> None:
        """Raises ValueError unless `model` is the one that the index was made by."""
        if model_identity(model) != self.model:
            raise ValueError(
                f"{self.folder} was made by another model; search it with that one, or make another index with --index"
            )

    def search_vector(self, kind: Kind, query: np.ndarray, k: int = 10, *, gap: float = GAP) -> list[Moment]:
        """The `k` moments that fit a unit vector float [hidden] best, best first: that of a text, or of a sound, as
        `kind` says, "text" or "sounds". `gap` is as in `search_text`. Raises ValueError for bad settings, and BadInput
        for a damaged part."""
        if kind not in ("text", "sounds"):
            raise ValueError(f"kind must be 'text' or 'sounds'; got {kind!r}")
        if query.shape != (self.hidden,):
            raise ValueError(f"query must be [{self.hidden}]; got {list(query.shape)}")
        if k < 1:
            raise ValueError(f"k must be at least 1; got {k}")
        if not gap >= 0:
            raise ValueError(f"gap must be at least 0; got {gap}")
        loaded = self._load(kind)
        total, fetched = len(loaded.part), min(_FETCHED * k, len(loaded.part))
        while fetched:
            scores, rows = loaded.vectors.search(query[None].astype(np.float32), fetched)
            kept = distinct(rows[0], loaded, k, gap)
            if len(kept) == k or fetched == total:
                return [self._moment(loaded, int(rows[0, n]), float(scores[0, n])) for n in kept]
            fetched = min(4 * fetched, total)
        return []

    def _moment(self, loaded: _Loaded, row: int, score: float) -> Moment:
        header = self._headers[loaded.part[row]]
        video = header.videos[loaded.video[row]]
        return Moment(video, float(loaded.start[row]), float(loaded.end[row]), score, header.place)

    def _load(self, kind: Kind) -> _Loaded:
        """The vectors of a kind, which are kept from then on."""
        if kind not in self._loaded:
            faiss = load_faiss()
            vectors = faiss.IndexScalarQuantizer(self.hidden, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
            columns: dict[str, list[np.ndarray]] = defaultdict(list)
            mean_sound = self._mean_sound() if kind == "text" else None
            for number, path in enumerate(self._parts):
                moments = self._read(path)
                own = text_vectors(moments, mean_sound) if kind == "text" else moments.sounds
                rows = np.arange(len(own)) if kind == "text" else moments.sound_moment
                if len(own):  # faiss keeps float16 as NumPy does, so nothing need be converted
                    vectors.add_sa_codes(np.ascontiguousarray(own).view(np.uint8))
                columns["part"].append(np.full(len(rows), number, np.int32))
                for name in ("video", "start", "end"):
                    columns[name].append(getattr(moments, name)[rows])
            joined = {name: np.concatenate(parts) for name, parts in columns.items()} if columns else _NO_ROWS
            self._loaded[kind] = _Loaded(vectors, **joined)
        return self._loaded[kind]

    def _read(self, path: Path) -> Moments:
        """The moments of a part. Raises BadInput for one that has changed or does not fit."""
        header, moments = read_part(path)
        if header != self._parts[path]:
            raise BadInput(f"{path} has changed since the index was opened; open the index again")
        for stored in (moments.words, moments.sounds):
            if stored.shape[1] != self.hidden:
                raise BadInput(f"{path} has vectors of {stored.shape[1]} numbers, not {self.hidden}; delete it")
        return moments

    def _mean_sound(self) -> np.ndarray | None:
        """What stands for the sound of moments that have none, float32 [hidden]: the mean of all that have; None if
        there are none."""
        if not self.num_sounds:
            return None
        total = np.zeros(self.hidden)
        if self.num_sounds < len(self):  # otherwise nothing needs it
            for path, header in self._parts.items():
                if header.sounds:
                    total += self._read(path).sounds.sum(axis=0, dtype=np.float64)
        return (total / self.num_sounds).astype(np.float32)


_NO_ROWS = {
    "part": np.zeros(0, np.int32),
    "video": np.zeros(0, np.int32),
    "start": np.zeros(0),
    "end": np.zeros(0),
}


def text_vectors(moments: Moments, mean_sound: np.ndarray | None) -> np.ndarray:
    """The vectors that a text is compared with, float16 [moments, hidden]: the mean of each moment's two vectors.

    Their dot product with a unit vector is the mean of its cosines with the words and with the sound. Moments without
    sound have `mean_sound` in its place, so that among others they are ranked by their words. None stands for an index
    without sound, where the words are all.
    """
    if mean_sound is None:
        return moments.words
    vectors = np.broadcast_to(mean_sound, moments.words.shape).copy()
    vectors[moments.sound_moment] = moments.sounds
    return ((vectors + moments.words) / 2).astype(np.float16)


def distinct(rows: np.ndarray, loaded: _Loaded, k: int, gap: float) -> list[int]:
    """Places in `rows`, best first, of at most `k` moments of which no two of one video begin less than `gap` seconds
    apart."""
    kept: list[int] = []
    starts: dict[tuple[int, int], list[float]] = defaultdict(list)
    for place, row in enumerate(rows.tolist()):
        start = float(loaded.start[row])
        others = starts[int(loaded.part[row]), int(loaded.video[row])]
        if all(abs(start - other) >= gap for other in others):
            others.append(start)
            kept.append(place)
            if len(kept) == k:
                break
    return kept


def sound_vector(path: str | os.PathLike[str], start: float, stop: float | None, model: MerlotReserve) -> np.ndarray:
    """The unit vector of a file's sound from `start` to `stop` seconds: float32 [hidden].

    The mean of the unit vectors of its subsegments, scaled to 1. Raises ValueError for bad times and BadInput for a
    file without sound or that ends before `start`.
    """
    if not 0 <= start < np.inf or (stop is not None and not stop > start):
        raise ValueError(f"start must be at least 0 and stop after it; got {start} and {stop}")
    waveform = read_sound(path)
    seconds = len(waveform) / SAMPLE_RATE
    stop = seconds if stop is None else min(stop, seconds)
    if stop - start < SHORTEST:
        limit = MediaLimits().max_duration
        end = f"ends at {seconds:.2f} s" if seconds < limit else f"is read for the first {limit / 3600:g} h only"
        raise BadInput(f"{path}: its sound {end}; there is none to search with from {start:g} s")
    count = max(int((stop - start) / SEGMENT_SECONDS + 0.8), 1)  # a rest of less than a second is left out
    bounds = np.minimum(start + SEGMENT_SECONDS * np.arange(count + 1), stop)
    spans = [TimeSpan(a, b, (a + b) / 2) for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]
    vectors = encode_heard(model, segment_clips(waveform, spans))[1].cpu().numpy()
    times = np.stack([subsegment_times(span) for span in spans])
    mean = vectors[times[..., 1] - times[..., 0] >= SHORTEST].mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def model_identity(model: MerlotReserve) -> str:
    """What an index recognises a model by: a digest of its configuration and of a sample of every weight."""
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    for name, weight in sorted(model.named_parameters()):
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(len(flat) // _SAMPLED, 1)].to(torch.float32).cpu().numpy()
        digest.update(name.encode() + sample.tobytes())
    return digest.hexdigest()


def part_files(folder: Path) -> list[Path]:
    """The parts of an index."""
    return sorted((folder / PARTS).glob(f"[!.]*{SUFFIX}"))


def write_manifest(folder: Path, model: str, hidden: int) -> None:
    """Makes the folder of an index of vectors of `hidden` numbers by a model of this identity."""
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    write_text_atomic(folder / MANIFEST, json.dumps({"format": FORMAT, "model": model, "hidden": hidden}) + "\n")


def read_manifest(folder: Path) -> tuple[str, int]:
    """The model's identity and the length of the vectors. Raises BadInput naming the file if it is none of an index."""
    path = folder / MANIFEST
    try:
        if check_regular_file(path).st_size > 1 << 20:
            raise BadInput("too large")
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise BadInput(f"its format is {content['format']!r:.80}, not {FORMAT!r}")
        model, hidden = content["model"], content["hidden"]
        if not isinstance(model, str) or type(hidden) is not int or hidden < 1:
            raise BadInput(f"its model is {model!r:.80} and its vectors have {hidden!r:.80} numbers")
    except (BadInput, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"{path} is no manifest of an index of moments: {error}") from error
    return model, hidden
