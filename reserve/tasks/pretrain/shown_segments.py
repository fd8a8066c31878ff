"""Held-out segments to look at: what the model saw, what was masked, and what it guessed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np

from reserve.batch.streams import TokenStream
from reserve.batch.vocabulary import AUDIOSPAN, MASK, MASKAUDIO, PAD
from reserve.tasks.pretrain.dataset import Example, PretrainDataset
from reserve.tasks.pretrain.masking import inference_subsegment_starts
from reserve.tasks.pretrain.pictures import clip_uri, frame_uri, spectrogram_uri
from reserve.tasks.pretrain.ranking import Ranking

SHOWN_SEGMENTS = 6
SHOWN_PICTURES = 3
"""Frames and sounds shown among the guesses of a query. All guesses of words are shown."""
CONTEXT_SUBSEGMENTS = 2
"""Subsegments of transcript shown before and after the segment."""


@dataclass(frozen=True)
class Piece:
    """Part of a transcript. `kind` is "text", "sound" or "mask"; `number` counts the masks of a segment from 1.

    `outside`: whether the piece is before or after the segment on the page.
    """

    kind: str
    text: str = ""
    number: int = 0
    outside: bool = False


@dataclass(frozen=True)
class Guess:
    """A candidate: its cosine with the prediction, a description, and a picture (data URI) if it has one."""

    score: float
    text: str
    picture: str
    is_true: bool


@dataclass(frozen=True)
class Answer:
    """The model's answer to one query: the rank of the true candidate and the best candidates.

    `rank` counts from 1; ties take their middle rank.
    """

    truth: Guess
    rank: float
    candidates: int
    guesses: list[Guess]


@dataclass(frozen=True)
class Transcript:
    """A segment's words as they are in one stream; `answers` by the number of the mask."""

    stream: str
    pieces: list[Piece]
    answers: dict[int, Answer]


@dataclass(frozen=True)
class HeldOutSegment:
    """Everything to see of one segment; `start` is in seconds of its video, pictures are data URIs."""

    video: str
    start: float
    playback_speed: int
    frame: str
    spectrogram: str
    matching_shows_audio: bool
    frame_answer: Answer | None
    sound_answers: list[Answer]
    transcripts: list[Transcript]


@dataclass(frozen=True)
class ShownSegments:
    """Some segments of an evaluation after `step` steps, on `videos` videos."""

    step: int
    videos: int
    segments: list[HeldOutSegment]


def shown_segments(step: int, dataset: PretrainDataset, rankings: Sequence[Ranking]) -> ShownSegments:
    """The segments that a run's page shows of an evaluation."""
    lookup = SegmentLookup(dataset, rankings)
    chosen = choose_segments(rankings, dataset.data.num_audio_subsegments)
    return ShownSegments(step, dataset.plans.num_videos, [lookup.segment(*place) for place in chosen])


def choose_segments(
    rankings: Sequence[Ranking], num_subsegments: int, count: int = SHOWN_SEGMENTS
) -> list[tuple[int, int]]:
    """(example, segment) of `count` evenly spaced segments with a masked sound; of any segments if no sound is masked.

    The choice does not depend on the model's answers. `num_subsegments` is the number of subsegments in a segment.
    """
    frames, sounds = (_by_name(rankings)[name] for name in ("imgs_to_audio", "text_to_audio"))
    places = sounds.places[sounds.truth] // (1, num_subsegments) if len(sounds.truth) else frames.places
    found = np.unique(places, axis=0)
    count = min(count, len(found))
    return [
        (int(example), int(segment))
        for example, segment in found[(2 * np.arange(count) + 1) * len(found) // (2 * count or 1)]
    ]


class SegmentLookup:
    """Looks up the queries and candidates of an evaluation in its data set."""

    def __init__(self, dataset: PretrainDataset, rankings: Sequence[Ranking]) -> None:
        self.dataset, self.data = dataset, dataset.data
        self.rankings = _by_name(rankings)
        self._queries = {
            name: {(int(e), int(p)): query for query, (e, p) in enumerate(ranking.places[ranking.truth])}
            for name, ranking in self.rankings.items()
        }
        self._example = lru_cache(maxsize=64)(lambda index: dataset[0, index])

    def segment(self, example: int, segment: int) -> HeldOutSegment:
        """Everything about segment `segment` of example `example`."""
        item, data = self._example(example), self.data
        collection, plan = self.dataset.plans[example]
        video, index = plan.segments[segment]
        stored = collection.load(video, index, index + 1)
        length = self.dataset.model.audio_seq_length
        subsegments = segment * data.num_audio_subsegments + np.arange(data.num_audio_subsegments)
        heard = item.text.text2audio
        sounds = [self.answer("text_to_audio", example, int(place)) for place in subsegments]
        return HeldOutSegment(
            video=stored.video_id,
            start=float(stored.start[0]),
            playback_speed=int(stored.playback_speed[0]),
            frame=frame_uri(item.images[segment]),
            spectrogram=spectrogram_uri(
                stored.log_mel[0].astype(np.float32),
                int(stored.playback_speed[0]),
                inference_subsegment_starts(data, length)[segment],
                length,
                np.isin(subsegments, heard.audio_ptr[heard.ids == MASKAUDIO]),
                data,
            ),
            matching_shows_audio=bool((item.text.audio_text_matching.ids == AUDIOSPAN).any()),
            frame_answer=self.answer("imgs_to_audio", example, segment),
            sound_answers=[answer for answer in sounds if answer],
            transcripts=self._transcripts(example, segment),
        )

    def candidate(self, problem: str, example: int, place: int) -> tuple[str, str]:
        """A candidate's text and picture; either may be empty."""
        item = self._example(example)
        if problem == "imgs_to_audio":
            return "", frame_uri(item.images[place])
        if problem == "text_to_audio":
            return self._decode(spoken_tokens(item, place)), clip_uri(item.audio_clips[place, :, :-1])
        return self._decode(item.text.text_spans[place]), ""

    def answer(self, problem: str, example: int, place: int) -> Answer | None:
        """The answer to the query at `place`; None if nothing was predicted there."""
        ranking = self.rankings[problem]
        query = self._queries[problem].get((example, place))
        if query is None:
            return None
        truth = ranking.truth[query]
        top = slice(None if problem == "stuff_to_span" else SHOWN_PICTURES)
        best = zip(ranking.guesses[query][top], ranking.guess_scores[query][top], strict=True)

        def guess(candidate: int, score: float) -> Guess:
            words, picture = self.candidate(problem, *ranking.places[candidate].tolist())
            return Guess(float(score), words, picture, bool(candidate == truth))

        return Answer(
            truth=guess(truth, ranking.true_score[query]),
            rank=float(ranking.above[query] + ranking.tied[query] / 2 + 1),
            candidates=ranking.candidates,
            guesses=[guess(candidate, score) for candidate, score in best],
        )

    def _transcripts(self, example: int, segment: int) -> list[Transcript]:
        """The segment in text2audio, and in audio2text if words are masked in it there."""
        text2audio, audio2text = (self._transcript(name, example, segment) for name in ("text2audio", "audio2text"))
        return [text2audio, audio2text] if any(piece.number for piece in audio2text.pieces) else [text2audio]

    def _transcript(self, name: str, example: int, segment: int) -> Transcript:
        item, data = self._example(example), self.data
        stream: TokenStream = getattr(item.text, name)
        first = segment * data.num_audio_subsegments
        inside = range(first, first + data.num_audio_subsegments)
        context = range(first - CONTEXT_SUBSEGMENTS, inside.stop + CONTEXT_SUBSEGMENTS)
        row = segment // data.segments_per_group
        tokens = [
            (token, subsegment, span)
            for token, subsegment, span in zip(
                *(getattr(stream, field)[row].tolist() for field in ("ids", "audio_ptr", "text_ptr")), strict=True
            )
            if subsegment in context and token not in (PAD, MASKAUDIO)
        ]
        pieces, answers = [], {}
        for piece, span in self._pieces(tokens, inside):
            pieces.append(piece)
            if piece.number and (answer := self.answer("stuff_to_span", example, span)):
                answers[piece.number] = answer
        return Transcript(name, pieces, answers)

    def _pieces(self, tokens: list[tuple[int, int, int]], inside: range) -> Iterator[tuple[Piece, int]]:
        """Groups tokens (id, subsegment, span) into pieces, each with the span that a mask predicts."""
        number = 0

        def kind(token: tuple[int, int, int]) -> tuple[str, bool, int]:
            # Consecutive words form one piece up to the segment's bounds; masks and sounds form one per subsegment.
            name = {MASK: "mask", AUDIOSPAN: "sound"}.get(token[0], "text")
            return name, token[1] not in inside, -1 if name == "text" else token[1]

        for (name, outside, _), group in groupby(tokens, kind):
            run = list(group)
            is_counted = name == "mask" and not outside
            number += is_counted
            words = self._decode(np.array([token for token, _, _ in run])) if name == "text" else ""
            yield Piece(name, words, number if is_counted else 0, outside), run[0][2]

    def _decode(self, ids: np.ndarray) -> str:
        return self.dataset.tokenizer.decode(ids[ids != PAD]).strip()


def spoken_tokens(item: Example, subsegment: int) -> np.ndarray:
    """Token ids of a subsegment's words in text2audio, whether masked or not."""
    stream = item.text.text2audio
    in_subsegment = stream.audio_ptr == subsegment
    masked = in_subsegment & (stream.ids == MASK)
    return item.text.text_spans[stream.text_ptr[masked][0]] if masked.any() else stream.ids[in_subsegment]


def _by_name(rankings: Sequence[Ranking]) -> dict[str, Ranking]:
    return {ranking.name: ranking for ranking in rankings}
