"""Speech with exact word times, from the espeak-ng library that the package espeakng-loader brings."""

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
"""Bytes of a path that the library can surely take: a little above, it cuts the names of the files below it short."""
SILENCE = 0.01
"""Samples below this fraction of full scale after a word do not belong to it."""


@dataclass(frozen=True, slots=True)
class Voice:
    """How the narrator sounds: espeak-ng's voice name, words a minute, pitch and its range in [0, 100]."""

    name: str = "en-us"
    rate: int = 160
    pitch: int = 50
    pitch_range: int = 50


@dataclass(frozen=True, slots=True)
class Speech:
    """Waveform float32 [samples] in [-1, 1], its sample rate, and the words with times in seconds."""

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
    """Says `text`, whose words are what spaces separate; silence before and after is cut off.

    The same text and voice give the same samples (for one version of espeak-ng), whatever was said before.
    ImportError, naming the extra to install, where espeak-ng is missing; ValueError for an unknown voice or for
    text without words.
    """
    with _ONE_AT_A_TIME, _Engine() as engine:
        waveform, word_starts, clause_ends = engine.synthesise(text, voice)
        sample_rate = engine.sample_rate
    words = _timed_words(text, waveform, sample_rate, word_starts, clause_ends)
    if not words:
        raise ValueError(f"there are no words to say in {text!r:.80}")
    first, last = words[0].start, words[-1].end
    cut = waveform[round(first * sample_rate) : round(last * sample_rate)]
    shifted = [Word(word.text, word.start - first, word.end - first) for word in words]
    return Speech(cut, sample_rate, shifted)


def _timed_words(
    text: str, waveform: np.ndarray, sample_rate: int, word_starts: dict[int, int], clause_ends: list[int]
) -> list[Word]:
    """Words of `text` with the times of the events; words the engine merged into one share its time by length."""
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
    """The espeak-ng library, loaded and initialised, and unloaded at the end of the with statement.

    It keeps the state of its synthesis in static variables that no call resets: only a library freshly loaded, with
    the same random seed, says the same text the same way. Loading takes 1.5 ms.
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
        # It reads its files as it needs them, so a short name for their folder must last as long as it does.
        self._short = tempfile.TemporaryDirectory() if len(data) > LONGEST_DATA_PATH else None
        if self._short is not None:
            link = Path(self._short.name) / "espeak-ng-data"
            link.symlink_to(os.path.abspath(os.fsdecode(data)))
            data = os.fsencode(link)
        self.sample_rate = self._library.espeak_Initialize(SYNCHRONOUS_OUTPUT, 0, data, DONT_EXIT_ON_ERROR)
        if self.sample_rate <= 0:
            self._remove_link()
            raise RuntimeError(f"espeak-ng does not start with its data in {os.fsdecode(data)}")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # the library takes the time of day
        self._chunks: list[np.ndarray] = []
        self._word_starts: dict[int, int] = {}
        self._clause_ends: list[int] = []
        self._callback = _Callback(self._collect)  # kept: the library holds only its address
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
        """Waveform float32 [samples], sample at which the word at each character starts, samples where clauses end."""
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
        """Called by the library with each piece of sound and the events in it; 0 asks for more."""
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
