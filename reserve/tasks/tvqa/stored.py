"""A question's pictures, sound and subtitles, prepared once from the clip's files and stored small."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from reserve.data.decode import choose_file_decoder
from reserve.data.float_images import stored_picture
from reserve.data.images import decode_jpeg
from reserve.errors import BadInput
from reserve.fs import check_regular_file
from reserve.tasks.record_cache import Parts
from reserve.tasks.stored_sound import decode_log_mel, encode_log_mel, to_bytes
from reserve.tasks.tvqa.annotations import Question
from reserve.tasks.tvqa.clip_files import ClipFiles
from reserve.tasks.tvqa.sound import SAMPLE_RATE, segment_log_mels
from reserve.tasks.tvqa.subtitles import segment_texts
from reserve.tasks.tvqa.times import choose_excerpt

VERSION = "tvqa 1"
"""Changes when the stored form or what is in it changes."""
_RECORD = "record.json"


@dataclass(frozen=True, slots=True)
class StoredQuestion:
    """What a question shows, n segments: `frames` uint8 [h, w, 3] each, `log_mels` float32 [n, 180, 65], `subtitles` by
    segment, and the annotated span as text."""

    frames: list[np.ndarray]
    log_mels: np.ndarray
    subtitles: list[str]
    localization: str


def question_key(question: Question) -> str:
    """What a stored question is found by."""
    return f"{question.id} {question.show} {question.span[0]!r} {question.span[1]!r}"


def prepare_question(question: Question, files: ClipFiles) -> Parts:
    """The stored form of a question. Raises BadInput naming the file that cannot be used."""
    pictures = files.frame_paths(question)
    excerpt = choose_excerpt(question.span, pictures)
    if not len(excerpt):
        raise BadInput(f"{files.frames_folder(question)} lacks the pictures of {question.id}'s segments")
    log_mels, factor = to_bytes(segment_log_mels(_read_track(question, files), excerpt.times))
    record = {
        "localization": excerpt.localization_text,
        "subtitles": segment_texts(files.cues(question), excerpt.times),
        "sound_factor": factor,
    }
    parts = {_RECORD: json.dumps(record).encode()}
    for number, (frame, log_mel) in enumerate(zip(excerpt.frames.tolist(), log_mels, strict=True)):
        path = pictures[frame]
        try:
            check_regular_file(path)
            parts[f"{number}.frame.jpg"] = stored_picture(decode_jpeg(path.read_bytes()))
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from error
        parts[f"{number}.sound.jpg"] = encode_log_mel(log_mel)
    return parts


def read_question_parts(parts: Parts) -> StoredQuestion:
    """A question from its stored form."""
    record = json.loads(parts[_RECORD])
    segments = range(len(record["subtitles"]))
    return StoredQuestion(
        frames=[decode_jpeg(parts[f"{number}.frame.jpg"]) for number in segments],
        log_mels=np.stack(
            [decode_log_mel(parts[f"{number}.sound.jpg"], record["sound_factor"]) for number in segments]
        ),
        subtitles=record["subtitles"],
        localization=record["localization"],
    )


def _read_track(question: Question, files: ClipFiles) -> np.ndarray:
    path = files.audio(question)
    try:
        check_regular_file(path)
        with choose_file_decoder().open(path) as media:
            return media.soundtrack(sample_rate=SAMPLE_RATE).waveform
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
