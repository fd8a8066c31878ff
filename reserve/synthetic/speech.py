"""Speech with exact word times, from the espeak-ng library in the package espeakng-loader."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import re
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np

from reserve.data.types import Word

# Constants of espeak-ng's speak_lib.h.
SYNCHRONOUS_OUTPUT = 2
DONT_EXIT_ON_ERROR = 0x8000
UTF8_TEXT = 1
CHARACTER_POSITIONS = 1
RATE, PITCH, PITCH_RANGE = 1, 3, 4
EVENT_END, EVENT_WORD, EVENT_CLAUSE_END = 0, 1, 5

LONGEST_DATA_PATH = 150
"""Longest data path in bytes that is safe: the library truncates file names below slightly longer ones."""
SILENCE = 0.01
"""Samples below this fraction of full scale count as silence after a word."""


@dataclass(frozen=True, slots=True)
class Voice:
    """The narrator's voice: espeak-ng's name for it, words per minute, pitch and pitch range in [0, 100]."""

    name: str = "en-us"
    rate: int = 160
    pitch: int = 50
    pitch_range: int = 50


@dataclass(frozen=True, slots=True)
class Speech:
    """A waveform float32 [samples] in [-1, 1], its sample rate in Hz, and its words with times in seconds."""

    waveform: np.ndarray
    sample_rate: int
    words: list[Word]


class _EventId(ctypes.Union):
    _fields_: ClassVar = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """espeak_EVENT: `text_position` counts characters from 1, `sample` is the position in the whole output."""

    _fields_: ClassVar = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


_ONE_AT_A_TIME = threading.Lock()


def speak(text: str, voice: Voice) -> Speech:
    """Speaks `text`, whose words are separated by spaces, and trims silence at both ends.

    The same text and voice always give the same samples with one version of espeak-ng. Raises ImportError naming the
    extra to install if espeak-ng is missing, and ValueError for an unknown voice or for text without words.
    """
    with _ONE_AT_A_TIME, _Engine() as engine:
        waveform, word_starts, clause_ends = engine.synthesise(text, voice)
        sample_rate = engine.sample_rate
    words = _timed_words(text, waveform, sample_rate, word_starts, clause_ends)
    if not words:
        raise ValueError(f"no words to speak in {text!r:.80}")
    first, last = words[0].start, words[-1].end
    cut = waveform[round(first * sample_rate) : round(last * sample_rate)]
    shifted = [Word(word.text, word.start - first, word.end - first) for word in words]
    return Speech(cut, sample_rate, shifted)


def _timed_words(
    text: str, waveform: np.ndarray, sample_rate: int, word_starts: dict[int, int], clause_ends: list[int]
) -> list[Word]:
    """The words of `text` with their times. Words that the engine merged into one split its time by length."""
    spoken = [match for match in re.finditer(r"\S+", text) if re.search(r"\w", match.group())]
    starts = [word_starts.get(match.start()) for match in spoken]
    words: list[Word] = []
    for index, begin in enumerate(starts):
        if begin is None:
            continue
        group_end = next((i for i in range(index + 1, len(starts)) if starts[i] is not None), len(starts))
        following = starts[group_end] if group_end < len(starts) else None
        clause_end = next((end for end in clause_ends if end > begin), len(waveform))
        limit = clause_end if following is None else min(following, clause_end)
        loud = np.flatnonzero(np.abs(waveform[begin:limit]) > SILENCE)
        end = begin + int(loud[-1]) + 1 if loud.size else limit
        group = spoken[index:group_end]
        bounds = np.cumsum([0, *(len(match.group()) + 1 for match in group)], dtype=float)
        times = (begin + bounds / bounds[-1] * (end - begin)) / sample_rate
        words += [
            Word(match.group().strip(",."), float(times[i]), float(times[i + 1])) for i, match in enumerate(group)
        ]
    return words


class _Engine:
    """The espeak-ng library, loaded on construction and unloaded at the end of the with statement.

    The library keeps synthesis state in static variables that no call resets. Only a freshly loaded library with the
    same random seed speaks the same text in the same way. Loading takes 1.5 ms.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise ImportError(
                "synthetic speech needs espeak-ng: pip install 'merlot-reserve[demo]'", name="espeakng_loader"
            ) from error
        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        data = os.fsencode(espeakng_loader.get_data_path())
        # The library reads its files on demand, so the link must live as long as the library.
        self._short = tempfile.TemporaryDirectory() if len(data) > LONGEST_DATA_PATH else None
        if self._short is not None:
            link = Path(self._short.name) / "espeak-ng-data"
            link.symlink_to(os.path.abspath(os.fsdecode(data)))
            data = os.fsencode(link)
        self.sample_rate = self._library.espeak_Initialize(SYNCHRONOUS_OUTPUT, 0, data, DONT_EXIT_ON_ERROR)
        if self.sample_rate <= 0:
            self._remove_link()
            raise RuntimeError(f"espeak-ng cannot start with its data in {os.fsdecode(data)}")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # seeded with the time of day by default
        self._chunks: list[np.ndarray] = []
        self._word_starts: dict[int, int] = {}
        self._clause_ends: list[int] = []
        self._callback = _Callback(self._collect)  # keep a reference: the library stores only its address
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> _Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._library.espeak_Terminate()
        self._remove_link()
        _ctypes.dlclose(self._library._handle)

    def _remove_link(self) -> None:
        if self._short is not None:
            self._short.cleanup()

    def synthesise(self, text: str, voice: Voice) -> tuple[np.ndarray, dict[int, int], list[int]]:
        """The waveform float32 [samples], the first sample of each word by character offset, and where clauses end."""
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice.name!r}")
        for parameter, value in ((RATE, voice.rate), (PITCH, voice.pitch), (PITCH_RANGE, voice.pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._chunks, self._word_starts, self._clause_ends = [], {}, []
        data = text.encode()
        status = self._library.espeak_Synth(
            data, ctypes.c_size_t(len(data) + 1), 0, CHARACTER_POSITIONS, 0, UTF8_TEXT, None, None
        )
        if status != 0:
            raise RuntimeError(f"espeak-ng failed with status {status} on {text!r:.80}")
        samples = np.concatenate([np.zeros(0, np.int16), *self._chunks])
        return samples.astype(np.float32) / 32768, self._word_starts, self._clause_ends

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        """The library's callback for each chunk of sound and its events. Returning 0 continues the synthesis."""
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != EVENT_END:
            event = events[index]
            if event.type == EVENT_WORD:
                self._word_starts.setdefault(event.text_position - 1, event.sample)
            elif event.type == EVENT_CLAUSE_END:
                self._clause_ends.append(event.sample)
            index += 1
        return 0
