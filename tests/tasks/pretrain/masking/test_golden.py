"""Masking against the reference's recorded draws. Its means over many draws are in tests/parity."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from reserve.batch.streams import TokenStream
from reserve.batch.vocabulary import AUDIOSPAN, MASK, PAD
from reserve.tasks.pretrain.masking import MaskingChoices, apply_masking, draw_masking_choices, draw_subsegment_starts
from reserve.tasks.pretrain.text import MetadataPrefixes, UnmaskedText
from tests.parity.masking_measures import DATA, MODEL, RECORDS, STREAMS, example_text


@pytest.fixture(scope="module", params=RECORDS)
def record(request: pytest.FixtureRequest, shared_dir: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared_dir / "golden" / f"words_{request.param}.npz"))


def triples(stream: TokenStream) -> np.ndarray:
    return np.stack([stream.ids, stream.audio_ptr, stream.text_ptr], -1)


@pytest.mark.parametrize("draw", range(3))
def test_recorded_draws_are_reproduced(record: dict[str, np.ndarray], draw: int, prefixes: MetadataPrefixes) -> None:
    text = example_text(record)
    recorded = {name: np.atleast_3d(record[f"draw{draw}/{name}"]) for name in STREAMS}
    recorded["audio_text_matching"] = record[f"draw{draw}/audio_text_matching"][None]
    seconds = record[f"draw{draw}/audio_start"] + DATA.fft_window_size / DATA.sample_rate / 2
    starts = np.rint(seconds * DATA.sample_rate / DATA.fft_hop_length).astype(np.int32)

    choices = recover_multimodal_choices(text, recorded)
    reproduced = []
    for coins in itertools.product([False, True], repeat=2):
        tried = dataclasses.replace(choices, fill_right_first=coins[0], grow_right_first=coins[1])
        masked = apply_masking(text, starts, prefixes, tried, DATA, MODEL)
        reproduced.append(
            np.array_equal(triples(masked.text2audio), recorded["text2audio"])
            and np.array_equal(masked.text_spans[:12], record[f"draw{draw}/text_spans"][:12])
        )
    assert any(reproduced), "no outcome of text2audio's two coins gives the recorded text2audio stream and spans"
    # The coins affect text2audio only, so any of the four shows the other streams.
    np.testing.assert_array_equal(triples(masked.audio2text), recorded["audio2text"])
    np.testing.assert_array_equal(triples(masked.audio_text_matching), recorded["audio_text_matching"])
    np.testing.assert_array_equal(masked.text_spans[12:24], record[f"draw{draw}/text_spans"][12:24])


@pytest.mark.parametrize("draw", range(3))
def test_recorded_random_text_is_reproduced(
    record: dict[str, np.ndarray], draw: int, prefixes: MetadataPrefixes
) -> None:
    text = example_text(record)
    starts = draw_subsegment_starts(np.random.default_rng(0), DATA)
    stream, spans = record[f"draw{draw}/random_text"], record[f"draw{draw}/text_spans"][24:]
    base = draw_masking_choices(text, DATA, MODEL, np.random.default_rng(0))

    def matches(choices: MaskingChoices) -> bool:
        masked = apply_masking(text, starts, prefixes, choices, DATA, MODEL)
        return np.array_equal(triples(masked.random_text), stream) and np.array_equal(masked.text_spans[24:], spans)

    assert any(matches(choices) for choices in recover_random_text_choices(base, text, stream[0], spans))


def recover_multimodal_choices(text: UnmaskedText, recorded: dict[str, np.ndarray]) -> MaskingChoices:
    text2audio, audio2text = (recorded[name].reshape(-1, 3) for name in ("text2audio", "audio2text"))
    keep_text = np.ones(DATA.num_subsegments, bool)
    keep_text[audio2text[audio2text[:, 0] == AUDIOSPAN, 1]] = False
    return dataclasses.replace(
        draw_masking_choices(text, DATA, MODEL, np.random.default_rng(0)),
        text2audio_targets=np.sort(text2audio[text2audio[:, 0] == MASK, 1]),
        audio2text_targets=np.sort(audio2text[audio2text[:, 0] == MASK, 1]),
        keep_text=keep_text,
        show_audio=bool((recorded["audio_text_matching"][..., 0] == AUDIOSPAN).any()),
    )


def recover_random_text_choices(
    base: MaskingChoices, text: UnmaskedText, stream: np.ndarray, spans: np.ndarray
) -> Iterator[MaskingChoices]:
    """Every set of choices that can have given the stream: text before the first fake span looks like part of it."""
    stream = stream[stream[:, 0] != PAD]
    # The text with its masks filled in lies somewhere in the record's random text.
    pieces = [spans[ptr - 24][spans[ptr - 24] != PAD] if id_ == MASK else [id_] for id_, _, ptr in stream]
    whole = np.concatenate(pieces)
    windows = np.lib.stride_tricks.sliding_window_view(text.random_text, len(whole))
    (place,) = np.flatnonzero((windows == whole).all(1))

    rows = np.repeat(stream[:, 1], [len(piece) for piece in pieces])
    first_is_masked = stream[stream[:, 1] == 0, 0][-1] == MASK
    # The text after the last fake span has the next pointer; without such text, the last pointer is a fake span's.
    for num_spans in (rows[-1], rows[-1] + 1):
        lengths = np.bincount(rows, minlength=num_spans)[:num_spans]
        before_at_most = lengths[0] - (len(pieces[np.argmax(stream[:, 0] == MASK)]) if first_is_masked else 1)
        for before in [before_at_most] if first_is_masked else range(before_at_most + 1):
            span_lengths = lengths.copy()
            span_lengths[0] -= before
            yield dataclasses.replace(
                base,
                span_lengths=span_lengths,
                span_offset=int(place + before),
                masked_spans=stream[stream[:, 0] == MASK, 1],
            )
