"""SPEC 7's invariants on random examples, and edge cases of real data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reserve.batch.streams import TokenStream
from reserve.batch.vocabulary import AUDIOSPAN, END, LTOVPOOL, MASK, MASKAUDIO, PAD, START
from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.masking import apply_masking, draw_masking_choices, draw_subsegment_starts, mask_text
from reserve.tasks.pretrain.masking.alignment import align
from reserve.tasks.pretrain.text import MaskedText, UnmaskedText

MODEL = ModelConfig()
BASE = DataConfig()
TINY = DataConfig(num_segments=4, lang_seq_len=40, seq_len=52, text_span_budget=6, num_text_spans_to_include=8)
CONFIGS = {
    "base": BASE,
    "short": dataclasses.replace(BASE, seq_len=384),
    "tiny": TINY,
    "one group, one subsegment": dataclasses.replace(
        TINY, num_segment_groups=1, num_audio_subsegments=1, mask_rate=0.5
    ),
    "shortest allowed": DataConfig(
        num_segments=4, lang_seq_len=12, seq_len=7, mask_rate=0.5, text_span_budget=7, num_text_spans_to_include=8
    ),
    "no random spans": dataclasses.replace(TINY, text_span_budget=0, num_text_spans_to_include=6),
}
STREAMS = ("text2audio", "audio2text", "audio_text_matching", "random_text")


@dataclasses.dataclass
class Case:
    """An example, its masking, and the random choices for it."""

    data: DataConfig
    text: UnmaskedText
    starts: np.ndarray
    seed: int
    masked: MaskedText


@st.composite
def cases(draw: st.DrawFn, make_text, prefixes) -> Case:
    """Random examples of every configuration, from silent to twice as many words as fit, at random times."""
    data = CONFIGS[draw(st.sampled_from(sorted(CONFIGS)))]
    seed = draw(st.integers(0, 2**32 - 1))
    words_per_segment = draw(st.sampled_from([0, 1, 3, 8, 20, 60]))
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, words_per_segment + 1, data.num_segments)
    centers = [np.sort(rng.uniform(-0.5, 5.5, count)) for count in counts]
    words = [(segment, t - 0.1, t + 0.1) for segment, times in enumerate(centers) for t in times]
    random_length = draw(st.sampled_from([0, 1, 30, 300, 1280]))
    text = make_text(
        data,
        words,
        playback_speed=rng.integers(1, 4, data.num_segments).tolist(),
        metadata=draw(st.sampled_from([(0, 0, 0), (4, 9, 3), (700, 2000, 90)])),
        random_text=random_length,
        not_plain=tuple(np.flatnonzero(rng.random(random_length) < draw(st.sampled_from([0, 0.1, 1])))),
    )
    starts = draw_subsegment_starts(rng, data)
    return Case(data, text, starts, seed, mask_text(text, starts, prefixes, data, MODEL, np.random.default_rng(seed)))


@pytest.fixture(scope="session")
def any_case(make_text, prefixes) -> st.SearchStrategy[Case]:
    return cases(make_text, prefixes)


def tokens(stream: TokenStream) -> Iterator[tuple[int, int, int, int]]:
    """(sequence, id, audio_ptr, text_ptr) of every token that is not PAD."""
    for sequence in range(len(stream.ids)):
        for id_, audio, span in zip(
            stream.ids[sequence], stream.audio_ptr[sequence], stream.text_ptr[sequence], strict=True
        ):
            if id_ != PAD:
                yield sequence, int(id_), int(audio), int(span)


def targets(stream: TokenStream) -> set[int]:
    return set(stream.audio_ptr[stream.ids == MASK].tolist())


def span_ids(masked: MaskedText) -> list[list[int]]:
    return [span[span != PAD].tolist() for span in masked.text_spans]


@settings(max_examples=60, deadline=None)
@given(drawn=st.data())
def test_shapes_and_types(any_case, drawn: st.DataObject) -> None:
    case = drawn.draw(any_case)
    data, masked = case.data, case.masked
    shapes = [(data.num_segment_groups, data.lang_seq_len)] * 2 + [(1, data.seq_len)] * 2
    for name, shape in zip(STREAMS, shapes, strict=True):
        stream = getattr(masked, name)
        for array in (stream.ids, stream.audio_ptr, stream.text_ptr):
            assert array.shape == shape
            assert array.dtype == np.int32
    assert masked.text_spans.shape == (data.num_text_spans, MODEL.text_span_length)
    assert masked.text_spans.dtype == np.int32


@settings(max_examples=60, deadline=None)
@given(drawn=st.data())
def test_padding_is_a_tail_that_points_nowhere(any_case, drawn: st.DataObject) -> None:
    masked = drawn.draw(any_case).masked
    for name in STREAMS:
        stream = getattr(masked, name)
        is_pad = stream.ids == PAD
        assert (np.diff(is_pad.astype(int), axis=1) >= 0).all(), name
        assert (stream.audio_ptr[is_pad] == -1).all(), name
        assert (stream.text_ptr[is_pad] == -1).all(), name
    is_pad = masked.text_spans == PAD
    assert (np.diff(is_pad.astype(int), axis=1) >= 0).all()


@settings(max_examples=60, deadline=None)
@given(drawn=st.data())
def test_every_target_has_its_masks_and_the_directions_share_none(any_case, drawn: st.DataObject) -> None:
    case = drawn.draw(any_case)
    data, masked = case.data, case.masked
    heard, read = targets(masked.text2audio), targets(masked.audio2text)
    assert len(heard) == len(read) == data.num_masked_subsegments
    assert heard.isdisjoint(read)
    spoken = masked.random_text.ids == MASK
    choices = draw_masking_choices(case.text, data, MODEL, np.random.default_rng(case.seed))
    assert spoken.sum() == min(data.text_span_budget, len(choices.span_lengths))


@settings(max_examples=60, deadline=None)
@given(drawn=st.data())
def test_every_mask_points_to_its_own_span(any_case, drawn: st.DataObject) -> None:
    case = drawn.draw(any_case)
    data, masked = case.data, case.masked
    first = 0
    for name, count in zip(
        ("text2audio", "audio2text", "random_text"),
        (data.num_masked_subsegments, data.num_masked_subsegments, data.text_span_budget),
        strict=True,
    ):
        stream = getattr(masked, name)
        pointers = stream.text_ptr[stream.ids == MASK]
        assert len(set(pointers.tolist())) == len(pointers), name
        assert ((pointers >= first) & (pointers < first + count)).all(), name
        # In reading order, so that the k-th target's span is the k-th of the stream's.
        assert (np.diff(pointers) > 0).all(), name
        assert (stream.text_ptr[~np.isin(stream.ids, (MASK, MASKAUDIO))] == -1).all(), name
        first += count
    assert (masked.audio_text_matching.text_ptr == -1).all()


@settings(max_examples=60, deadline=None)
@given(drawn=st.data())
def test_maskaudio_follows_its_mask(any_case, drawn: st.DataObject) -> None:
    case = drawn.draw(any_case)
    flat = list(tokens(case.masked.text2audio))
    follow = [(token, flat[index - 1]) for index, token in enumerate(flat) if token[1] == MASKAUDIO]
    for (sequence, _, audio, span), previous in follow:
        assert previous == (sequence, MASK, audio, span)
    for ids in case.masked.text2audio.ids:
        places = np.flatnonzero(np.isin(ids, (MASK, MASKAUDIO)))
        # Only the last resort can lose a MASKAUDIO, and it leaves nothing before the first MASK or after the last.
        last_resort = len(places) and places[-1] - places[0] + 1 == case.data.lang_seq_len
        assert last_resort or (ids == MASKAUDIO).sum() == (ids == MASK).sum()
    for name in STREAMS[1:]:
        assert MASKAUDIO not in getattr(case.masked, name).ids


@settings(max_examples=60, deadline=None)
@given(drawn=st.data())
def test_audio_pointers_lie_in_their_streams_range(any_case, drawn: st.DataObject) -> None:
    case = drawn.draw(any_case)
    data, masked = case.data, case.masked
    per_group = data.segments_per_group * data.num_audio_subsegments
    for name in ("text2audio", "audio2text"):
        for sequence, _, audio, _ in tokens(getattr(masked, name)):
            assert sequence * per_group <= audio < (sequence + 1) * per_group
        assert all((np.diff(row[row >= 0]) >= 0).all() for row in getattr(masked, name).audio_ptr)
    for _, id_, audio, _ in tokens(masked.audio_text_matching):
        if id_ in (START, END):
            assert audio == -1
        elif id_ == LTOVPOOL:
            assert audio % data.num_audio_subsegments == 0
        assert -1 <= audio < data.num_subsegments
    fake = [audio for *_, audio, _ in tokens(masked.random_text)]
    assert fake == sorted(fake)
    # A sequence with room for its MASKs alone loses the words of a first span that is not masked.
    only_masks = all(id_ == MASK for _, id_, *_ in tokens(masked.random_text))
    assert only_masks or fake[0] == 0


@settings(max_examples=60, deadline=None)
@given(drawn=st.data())
def test_audiospans_come_in_whole_runs(any_case, drawn: st.DataObject) -> None:
    case = drawn.draw(any_case)
    data, masked = case.data, case.masked
    for name in ("audio2text", "audio_text_matching"):
        stream = getattr(masked, name)
        for sequence in range(len(stream.ids)):
            audio_rows = stream.audio_ptr[sequence][stream.ids[sequence] == AUDIOSPAN]
            rows, counts = np.unique(audio_rows, return_counts=True)
            cut = (stream.ids[sequence] != PAD).all()
            # Only a truncated group can contain part of a subsegment.
            assert cut or (counts == MODEL.audio_token_length).all()
            assert set(rows.tolist()).isdisjoint(targets(masked.audio2text)) or name == "audio_text_matching"
    for name in ("text2audio", "random_text"):
        assert AUDIOSPAN not in getattr(masked, name).ids
    pools = masked.audio_text_matching.audio_ptr[masked.audio_text_matching.ids == LTOVPOOL]
    if data.seq_len >= data.num_segments * (1 + data.num_audio_subsegments * MODEL.audio_token_length):
        assert pools.tolist() == list(range(0, data.num_subsegments, data.num_audio_subsegments))


@settings(max_examples=60, deadline=None)
@given(drawn=st.data())
def test_spans_hold_text_only(any_case, drawn: st.DataObject) -> None:
    spans = drawn.draw(any_case).masked.text_spans
    assert ((spans == PAD) | (spans >= 100)).all()


@settings(max_examples=60, deadline=None)
@given(drawn=st.data())
def test_every_word_is_shown_or_to_be_predicted(any_case, drawn: st.DataObject, prefixes) -> None:
    case = drawn.draw(any_case)
    # Large enough that no group and no span is cut.
    data = dataclasses.replace(case.data, lang_seq_len=3000)
    model = dataclasses.replace(MODEL, text_span_length=2000)
    masked = mask_text(case.text, case.starts, prefixes, data, model, np.random.default_rng(case.seed))
    spans = span_ids(masked)
    restored = []
    for _, id_, _, span in tokens(masked.text2audio):
        if id_ == MASK:
            restored.extend(spans[span])
        elif id_ != MASKAUDIO:
            restored.append(id_)
    assert restored == case.text.token_ids.tolist()

    lengths = align(case.text, case.starts, data, MODEL.audio_seq_length).lengths
    by_row = np.split(case.text.token_ids, np.cumsum(lengths)[:-1])
    for _, id_, audio, span in tokens(masked.audio2text):
        if id_ == MASK:
            assert spans[span] == by_row[audio].tolist()
        elif id_ != AUDIOSPAN:
            assert id_ in by_row[audio]


@settings(max_examples=30, deadline=None)
@given(drawn=st.data())
def test_only_neighbors_of_audio2text_targets_are_text(any_case, drawn: st.DataObject) -> None:
    masked = drawn.draw(any_case).masked
    chosen = targets(masked.audio2text)
    for _, id_, audio, _ in tokens(masked.audio2text):
        if id_ not in (MASK, AUDIOSPAN):
            assert {audio - 1, audio + 1} & chosen


@settings(max_examples=30, deadline=None)
@given(drawn=st.data())
def test_the_same_generator_gives_the_same_example(any_case, drawn: st.DataObject, prefixes) -> None:
    case = drawn.draw(any_case)
    again = mask_text(case.text, case.starts, prefixes, case.data, MODEL, np.random.default_rng(case.seed))
    for name in STREAMS:
        for field in ("ids", "audio_ptr", "text_ptr"):
            np.testing.assert_array_equal(
                getattr(getattr(again, name), field), getattr(getattr(case.masked, name), field)
            )
    np.testing.assert_array_equal(again.text_spans, case.masked.text_spans)


def test_choices_that_are_passed_in_replace_drawn_ones(make_text, prefixes) -> None:
    text = make_text(BASE, [(0, 1, 2), (3, 1, 2)], random_text=900)
    starts = draw_subsegment_starts(np.random.default_rng(0), BASE)
    choices = draw_masking_choices(text, BASE, MODEL, np.random.default_rng(5))
    given_choices = apply_masking(text, starts, prefixes, choices, BASE, MODEL)
    drawn = mask_text(text, starts, prefixes, BASE, MODEL, np.random.default_rng(5))
    for name in STREAMS:
        np.testing.assert_array_equal(getattr(given_choices, name).ids, getattr(drawn, name).ids)


def test_an_example_without_any_text(make_text, prefixes) -> None:
    masked = mask_text(
        make_text(BASE, []), draw_subsegment_starts(np.random.default_rng(0), BASE), prefixes, BASE, MODEL,
        np.random.default_rng(0),
    )  # fmt: skip
    assert (masked.text_spans == PAD).all()
    assert (masked.text2audio.ids == MASK).sum() == (masked.text2audio.ids == MASKAUDIO).sum() == 12
    assert (masked.audio2text.ids == MASK).sum() == 12
    assert (masked.random_text.ids == PAD).all()
    assert (masked.audio_text_matching.ids == LTOVPOOL).sum() == 16


def test_a_group_far_too_long_keeps_every_mask(make_text, prefixes) -> None:
    words = [(segment, t, t + 0.01) for segment in range(16) for t in np.linspace(0, 4.9, 100)]
    text = make_text(BASE, words, random_text=900)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        masked = mask_text(text, draw_subsegment_starts(rng, BASE), prefixes, BASE, MODEL, rng)
        assert (masked.text2audio.ids == MASK).sum() == (masked.audio2text.ids == MASK).sum() == 12
        assert (masked.text2audio.ids != PAD).all()
        assert (masked.text_spans[:24, -1] != PAD).all(), "spans of 33 words are cut to 15"


BAD = {
    "token_end": ("token_end must have shape \\(2,\\); got \\(1,\\)", np.zeros(1, np.float32)),
    "playback_speed": ("playback_speed must have shape \\(16,\\); got \\(4,\\)", np.ones(4, np.int32)),
    "random_text_is_plain": ("random_text_is_plain must have shape \\(900,\\)", np.ones(3, bool)),
    "token_segment": ("token_segment must be non-decreasing within \\[0, 16\\)", np.array([3, 2], np.int32)),
    "token_start": ("token_start and token_end must be finite", np.array([0, np.nan], np.float32)),
    "token_ids": (
        "token_ids must contain text only; got the reserved token <\\|MASK\\|>",
        np.array([50, MASK], np.int32),
    ),
    "description": (
        "description must contain text only; got the reserved token <\\|LTOVPOOL\\|>",
        np.array([LTOVPOOL]),
    ),
}


@pytest.mark.parametrize("field", BAD)
def test_invalid_text_is_named(make_text, prefixes, field: str) -> None:
    message, value = BAD[field]
    text = dataclasses.replace(make_text(BASE, [(0, 1, 2), (1, 1, 2)], random_text=900), **{field: value})
    starts = draw_subsegment_starts(np.random.default_rng(0), BASE)
    with pytest.raises(ValueError, match=message):
        mask_text(text, starts, prefixes, BASE, MODEL, np.random.default_rng(0))


def test_segments_beyond_the_example_are_refused(make_text, prefixes) -> None:
    starts = draw_subsegment_starts(np.random.default_rng(0), BASE)
    with pytest.raises(ValueError, match=r"token_segment .* got 16 to 16"):
        mask_text(make_text(BASE, [(16, 1, 2)]), starts, prefixes, BASE, MODEL, np.random.default_rng(0))


def test_starts_of_another_configuration_are_refused(make_text, prefixes) -> None:
    starts = draw_subsegment_starts(np.random.default_rng(0), TINY)
    with pytest.raises(ValueError, match=r"subsegment_starts must have shape \(16, 3\); got \(4, 3\)"):
        mask_text(make_text(BASE, []), starts, prefixes, BASE, MODEL, np.random.default_rng(0))


def test_random_documents_may_hold_their_start_and_end(make_text, prefixes) -> None:
    text = make_text(BASE, [], random_text=900, not_plain=(0, 899))
    text.random_text[[0, 899]] = START, END
    starts = draw_subsegment_starts(np.random.default_rng(0), BASE)
    masked = mask_text(text, starts, prefixes, BASE, MODEL, np.random.default_rng(0))
    assert not np.isin(masked.text_spans, (START, END)).any()
