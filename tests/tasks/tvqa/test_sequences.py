"""Sequences of an answer; test_batch.py compares with the reference's."""

from __future__ import annotations

from reserve.batch.vocabulary import AUDIOSPAN, MASK, START
from reserve.data.tokenizer import Tokenizer
from reserve.tasks.tvqa.sequences import audio_sequences, option_ids, text_sequences


def test_a_long_option_is_cut_before_its_mask():
    option = list(range(10, 40))

    sequences = audio_sequences([option], 16)
    roomy = text_sequences([option], [[50, 51], [], [52]], 33)

    assert sequences.ids[0].tolist() == [*option[:15], MASK]
    assert roomy.ids[0].tolist() == [*option, MASK, 50, 51]
    assert roomy.segments[0].tolist() == [0] * 31 + [1, 1]


def test_sounds_of_all_segments_follow_an_option():
    sequences = audio_sequences([[10], [11, 12]], 130)

    assert (sequences.ids == AUDIOSPAN).sum(1).tolist() == [126, 126]
    assert sequences.segments[0].tolist() == [0, 0] + [s for s in range(1, 8) for _ in range(18)] + [0, 0]


def test_special_tokens_in_the_text_of_a_question_are_dropped():
    tokenizer = Tokenizer.load()

    (option,) = option_ids(tokenizer, "61 to 95", "Who<|MASK|> is it?", ["<|AUDIOSPAN|>Robin"])

    assert option == [
        *tokenizer.encode("61 to 95"),
        START,
        *tokenizer.encode_plain("Who<|MASK|> is it?"),
        *tokenizer.encode("answer: "),
        *tokenizer.encode("Robin"),
    ]
    assert not {AUDIOSPAN, MASK} & set(option)
