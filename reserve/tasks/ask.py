"""Asks a question about a video: ranks the answers given, as the zero-shot tasks do (SPEC 10.5)."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reserve.batch.video_tokens import LENGTH, MAX_SEGMENTS, SUBSEGMENTS
from reserve.batch.vocabulary import MASK, SPECIAL_TOKENS
from reserve.config import ModelConfig
from reserve.data.tokenizer import Tokenizer
from reserve.data.video import Video, open_video
from reserve.data.video_sound import TimeSpan
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.windows import video_windows
from reserve.tasks.zero_shot.reader import VideoReader
from reserve.tasks.zero_shot.readout import encode_options, option_ids, option_logits, ranked, trained_scale
from reserve.tasks.zero_shot.statements import BLANK, MASK_TEXT, filled_blank, matched_statement
from reserve.tasks.zero_shot.task import closing_statement
from reserve.tasks.zero_shot.weights import load_vocabulary, load_weights

logger = logging.getLogger(__name__)

_ANY_MASK = re.compile(re.escape(MASK_TEXT), re.IGNORECASE)


@dataclass(frozen=True)
class RankedAnswer:
    """An answer with its `probability` among those given, and the window of the video that it fits `best`.

    `logit` is the logarithm of the probability, finite where that is rounded to 0. `in_windows` are its probabilities
    in each window, whose mean the probability is.
    """

    text: str
    probability: float
    logit: float
    best: TimeSpan
    in_windows: tuple[float, ...]


@dataclass(frozen=True)
class Answers:
    """The answers to a question about a video, `ranked` best first.

    `question` is as it was asked, `statement` what the model read. The question was put once to each of `windows`,
    stretches of the video. `heard` says whether the video had sound that could be decoded.
    """

    question: str
    statement: str
    ranked: tuple[RankedAnswer, ...]
    windows: tuple[TimeSpan, ...]
    heard: bool

    def __str__(self) -> str:
        several = len(self.windows) > 1
        rows = [("", "answer", "probability", *(["fits best"] if several else []))]
        for number, answer in enumerate(self.ranked, 1):
            best = [f"{_clock(answer.best.start)} to {_clock(answer.best.end)}"] if several else []
            rows.append((str(number), answer.text, f"{answer.probability:.1%}", *best))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        span = f"{_clock(self.windows[0].start)} to {_clock(self.windows[-1].end)}"
        parts = f" in {len(self.windows)} windows" if several else ""
        senses = "seen and heard" if self.heard else "seen without sound"
        return "\n".join((f"{self.statement}  ({span}{parts}, {senses})", *lines))

    def to_json(self) -> dict[str, Any]:
        """The answers as JSON values; times are [start, end] in seconds."""
        return {
            "question": self.question,
            "statement": self.statement,
            "heard": self.heard,
            "windows": [_bounds(window) for window in self.windows],
            "answers": [
                {
                    "text": answer.text,
                    "probability": answer.probability,
                    "logit": answer.logit,
                    "best": _bounds(answer.best),
                    "in_windows": list(answer.in_windows),
                }
                for answer in self.ranked
            ],
        }


@dataclass(frozen=True)
class CheckedQuestion:
    """A question and answers that a model can be asked. `ids` int32 [answers, length] are the answers' tokens."""

    question: str
    statement: str
    answers: tuple[str, ...]
    ids: np.ndarray

    @classmethod
    def of(cls, question: str, answers: Sequence[str], tokenizer: Tokenizer, config: ModelConfig) -> CheckedQuestion:
        """Checks what was asked; warns of answers that are cut. Raises ValueError saying what is wrong."""
        statement = _statement(question)
        _check_length(statement, tokenizer, config)
        if isinstance(answers, str) or len(answers) < 2:
            raise ValueError(f"answers must be two texts or more to choose among; got {answers!r:.200}")
        texts = tuple(" ".join(answer.split()) for answer in answers)
        return cls(question, statement, texts, _answer_ids(texts, tokenizer, config.text_span_length))


def ask(
    video: str | os.PathLike[str] | Video,
    question: str,
    answers: Sequence[str],
    *,
    model: MerlotReserve | str | os.PathLike[str],
    tokenizer: Tokenizer | str | os.PathLike[str] | None = None,
    start: float = 0.0,
    stop: float | None = None,
) -> Answers:
    """Ranks `answers` to a question about a video.

    The video is read in windows of at most 8 segments of 5 s from `start` to `stop`. In each the model sees a frame a
    segment, hears all segments but the last, and reads the question in that one, as in the release's zero-shot tasks. A
    window gives each answer a probability: the softmax of its cosine with the MASK's vector, times the inverse
    temperature that the model was trained with. The answer's probability is the mean over the windows. A video without
    sound that can be decoded is seen alone.

    Args:
        video: A file, or what `open_video` returns.
        question: A statement with one `<|MASK|>`, or `_`, in the place of the answer: "a man is <|MASK|>." Without one,
            the rules of `reserve.tasks.zero_shot.statements` make a statement of it where they can: "what is a man
            doing?"
        answers: Two or more different texts. Of each, the model reads 15 tokens.
        model: A model on its device in evaluation mode, or weights: a run's folder (its newest checkpoint that is
            whole), a checkpoint's, or a hub id. Loading takes longer than asking, so load a model once for several
            questions.
        tokenizer: The model's vocabulary, or its file; by default the run's for weights of a run, else this package's.
        start: Seconds where reading starts.
        stop: Seconds where it ends; by default the end of the video.

    Precision is float32 unless the caller has autocast on. Raises ValueError for a question, answers or times that
    cannot be used, BadInput for a video that cannot be decoded, and CheckpointError for weights that cannot be loaded.
    """
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = load_vocabulary(None if isinstance(model, MerlotReserve) else model, tokenizer)
    if not isinstance(model, MerlotReserve):
        model = load_weights(model)
    asked = CheckedQuestion.of(question, answers, tokenizer, model.config)
    opened = video if isinstance(video, Video) else open_video(os.fspath(video))
    return ask_checked(opened, asked, model, tokenizer, start=start, stop=stop)


def ask_checked(
    video: Video,
    asked: CheckedQuestion,
    model: MerlotReserve,
    tokenizer: Tokenizer,
    *,
    start: float = 0.0,
    stop: float | None = None,
) -> Answers:
    """What `ask` returns, for a question that was checked already. Raises as it does."""
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"the vocabulary has {tokenizer.vocab_size} tokens, more than the model's {model.config.vocab_size}"
        )
    windows = video_windows(video, start, stop)
    options = encode_options(model, asked.ids)
    queries = [closing_statement(window, asked.statement) for window in windows]
    masks = torch.stack([vectors[0] for vectors in VideoReader(model, tokenizer).read(video, queries)])
    log_odds = (
        option_logits(masks, options, trained_scale(model)).double().log_softmax(-1).cpu().numpy()
    )  # [windows, answers]
    if not np.isfinite(log_odds).all():
        raise ValueError("the model's logits are not finite; its weights are damaged, or bfloat16 is too narrow")
    logits = np.logaddexp.reduce(log_odds, axis=0) - np.log(len(windows))
    spans = tuple(TimeSpan(w[0].start, w[-1].end, (w[0].start + w[-1].end) / 2) for w in windows)
    found = tuple(
        RankedAnswer(
            text=asked.answers[number],
            probability=float(np.exp(logits[number])),
            logit=float(logits[number]),
            best=spans[int(log_odds[:, number].argmax())],
            in_windows=tuple(np.exp(log_odds[:, number]).tolist()),
        )
        for number in ranked(logits)
    )
    heard = any(len(window) > 1 for window in windows) and video.can_be_heard
    return Answers(asked.question, asked.statement, found, spans, heard)


def _statement(question: str) -> str:
    """The statement with one MASK that a question is, or that the rules make of it."""
    text = _ANY_MASK.sub(MASK_TEXT, " ".join(question.split()))
    marks = text.count(MASK_TEXT) + text.count(BLANK)
    found = filled_blank(text) if marks else matched_statement(text)
    if found is None:
        why = f"it has {marks}" if marks else "no rule makes such a statement of it"
        raise ValueError(
            f"the question must have exactly one {MASK_TEXT} (or {BLANK}) in the place of the answer, as in "
            f'"a man is {MASK_TEXT}."; got {question!r:.200}: {why}'
        )
    return found


def _check_length(statement: str, tokenizer: Tokenizer, config: ModelConfig) -> None:
    """Raises ValueError for a statement that would be cut, or that the vocabulary reads without its MASK."""
    ids = [token for token in tokenizer.encode(statement) if token == MASK or token >= len(SPECIAL_TOKENS)]
    most = LENGTH - (MAX_SEGMENTS - 1) * SUBSEGMENTS * config.audio_token_length
    if len(ids) > most:
        raise ValueError(f"the question has {len(ids)} tokens; at most {most} fit beside the sound of a video")
    if ids.count(MASK) != 1:
        raise ValueError(f"the vocabulary reads {ids.count(MASK)} masks in {statement!r:.200}; there must be one")


def _answer_ids(answers: Sequence[str], tokenizer: Tokenizer, length: int) -> np.ndarray:
    """The answers' tokens, int32 [answers, length]. Raises ValueError unless they are usable and differ."""
    encoded = [tokenizer.encode(answer) for answer in answers]
    for answer, ids in zip(answers, encoded, strict=True):
        if not ids or min(ids) < len(SPECIAL_TOKENS):
            wrong = "has a special token" if ids else "has no token"
            raise ValueError(f"each answer must be plain text that is not empty; {answer!r:.200} {wrong}")
        if len(ids) > length:
            logger.warning(
                "the answer %r has %d tokens; the model reads the first %d: %r",
                *(answer, len(ids), length, tokenizer.decode(ids[:length]).strip()),
            )
    rows = option_ids(tokenizer, answers, length)
    first: dict[bytes, int] = {}
    for number, row in enumerate(rows):
        if (same := first.setdefault(row.tobytes(), number)) != number:
            raise ValueError(
                f"answers must differ in what the model reads, {length} tokens without case or accents; "
                f"{answers[same]!r:.200} and {answers[number]!r:.200} do not"
            )
    return rows


def _clock(seconds: float) -> str:
    """A time as 1:02:03, 2:03 or 0:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _bounds(span: TimeSpan) -> list[float]:
    return [round(span.start, 3), round(span.end, 3)]
