from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import reserve
from reserve.data.tokenizer import Tokenizer
from reserve.errors import BadInput
from reserve.tasks.ask import Answers, CheckedQuestion, RankedAnswer
from tests.tasks.zero_shot.small_sets import small_model, write_video

STATEMENT = "a man is<|MASK|> now."
CHOICES = ("running fast", "a red ball", "the end")


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return reserve.open_video(write_video(tmp_path_factory.mktemp("video") / "video.mp4", 50.4))


def probabilities_by_hand(model, video, *windows) -> np.ndarray:
    """softmax(scale h·o) of each window through `embed_video`: [windows, answers]."""
    tokenizer = Tokenizer.load()
    spans = np.zeros((len(CHOICES), 15), np.int32)
    for row, choice in zip(spans, CHOICES, strict=True):
        ids = tokenizer.encode(choice)
        row[: len(ids)] = ids
    found = []
    with torch.inference_mode():
        options = model.embed_text_spans(spans)
        for start, stop in windows:
            segments = video.segments(start=start, stop=stop)
            inputs = video.inputs(model.config.image_size, segments, texts={-1: STATEMENT})
            mask = model.embed_video(*inputs)[0][torch.from_numpy(inputs.tokens[0] == 3)]
            scale = model.contrastive_scales[2].exp()
            found.append((scale * mask @ options.T)[0].softmax(0).numpy())
    return np.stack(found)


def test_a_short_stretch_is_one_window(model, video):
    answers = reserve.ask(video, "a man is <|MASK|> now.", CHOICES, model=model, start=10, stop=30)
    expected = probabilities_by_hand(model, video, (10, 30))[0]
    assert [answer.text for answer in answers.ranked] == [CHOICES[i] for i in np.argsort(-expected)]
    np.testing.assert_allclose([answer.probability for answer in answers.ranked], np.sort(expected)[::-1], rtol=1e-3)
    assert [window[:2] for window in answers.windows] == [(10, 30)]
    assert (answers.question, answers.statement, answers.heard) == ("a man is <|MASK|> now.", STATEMENT, True)


def test_the_probability_of_a_long_video_is_the_mean_over_its_windows(model, video):
    answers = reserve.ask(video, "a man is _ now.", CHOICES, model=model)
    by_window = probabilities_by_hand(model, video, (0, 25), (25, None))
    by_text = dict(zip(CHOICES, by_window.T, strict=True))
    assert [window.start for window in answers.windows] == [0, 25]
    for answer in answers.ranked:
        own = by_text[answer.text]
        np.testing.assert_allclose(answer.in_windows, own, rtol=1e-3, atol=1e-6)
        assert answer.probability == pytest.approx(own.mean(), rel=1e-3)
        assert np.exp(answer.logit) == pytest.approx(answer.probability)
        assert answer.best == answers.windows[own.argmax()]
    assert sum(answer.probability for answer in answers.ranked) == pytest.approx(1)


def test_a_file_and_stored_weights_do(model, video, tmp_path):
    model.save_pretrained(tmp_path)
    found = reserve.ask(str(video.path), STATEMENT, CHOICES, model=tmp_path, stop=10)
    assert found == reserve.ask(video, STATEMENT, CHOICES, model=model, tokenizer=Tokenizer.load(), stop=10)


def test_a_video_without_sound_is_seen_alone(model, tmp_path):
    path = write_video(tmp_path / "silent.mp4", 12, sound=False)
    answers = reserve.ask(path, STATEMENT, CHOICES, model=model)
    assert not answers.heard
    assert "seen without sound" in str(answers)


@pytest.mark.parametrize(
    ("question", "statement"),
    [
        ("what is a man doing?", "a man is<|MASK|>."),
        ("A  man\nis <|mask|>", "A man is<|MASK|>"),
        ("_ is red", "<|MASK|> is red"),
    ],
)
def test_questions_become_statements(model, question, statement):
    assert CheckedQuestion.of(question, CHOICES, Tokenizer.load(), model.config).statement == statement


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("is it red?", r"exactly one <\|MASK\|> \(or _\).*'is it red\?': no rule makes such a statement"),
        ("", "no rule makes such a statement"),
        ("<|MASK|> is <|MASK|>", "it has 2"),
        ("_ is <|MASK|>", "it has 2"),
        ("word " * 40 + "_", "at most 34 fit beside the sound"),
    ],
)
def test_questions_that_cannot_be_asked_say_why(model, video, question, message):
    with pytest.raises(ValueError, match=message):
        reserve.ask(video, question, CHOICES, model=model)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["one"], "two texts or more"),
        ("ab", "two texts or more"),
        (["one", "  "], "'' has no token"),
        (["one", "<|MASK|>"], "has a special token"),
        (["Red", "blue", "réd"], "'Red' and 'réd' do not"),
        (["one", "one"], "must differ"),
        (["so " * 20 + "red", "so " * 20 + "blue"], "must differ in what the model reads, 15 tokens"),
    ],
)
def test_answers_that_cannot_be_told_apart_are_refused(model, video, answers, message):
    with pytest.raises(ValueError, match=message):
        reserve.ask(video, STATEMENT, answers, model=model)


def test_a_long_answer_is_cut_with_a_warning(model, caplog):
    CheckedQuestion.of(STATEMENT, ["very " * 16 + "red", "blue"], Tokenizer.load(), model.config)
    assert "has 17 tokens; the model reads the first 15: 'very very" in caplog.text


def test_a_vocabulary_larger_than_the_models_is_refused(video):
    from reserve.model.merlot_reserve import MerlotReserve
    from tests.helpers.tiny import tiny

    with pytest.raises(ValueError, match="more than the model's 100"):
        reserve.ask(video, STATEMENT, CHOICES, model=MerlotReserve(tiny(vocab_size=100, vit_patch_size=16)))


def test_a_stretch_after_the_end_and_a_file_that_is_no_video_are_refused(model, video, tmp_path):
    with pytest.raises(BadInput, match="no segment can start at 60 s"):
        reserve.ask(video, STATEMENT, CHOICES, model=model, start=60)
    (tmp_path / "noise.mp4").write_bytes(b"noise")
    with pytest.raises(BadInput, match=r"noise\.mp4"):
        reserve.ask(tmp_path / "noise.mp4", STATEMENT, CHOICES, model=model)


def test_logits_that_are_not_finite_are_an_error(video):
    model = small_model()
    with torch.no_grad():
        model.head.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="logits are not finite"):
        reserve.ask(video, STATEMENT, CHOICES, model=model, stop=5)


def test_the_table_and_the_json_say_the_same():
    spans = reserve.tasks.ask.TimeSpan(0.0, 40.0, 20.0), reserve.tasks.ask.TimeSpan(40.0, 3725.0, 60.0)
    ranked = (
        RankedAnswer("a red ball", 0.75, np.log(0.75).item(), spans[1], (0.6, 0.9)),
        RankedAnswer("the end", 0.25, np.log(0.25).item(), spans[0], (0.4, 0.1)),
    )
    answers = Answers("it is _", "it is<|MASK|>", ranked, spans, heard=True)
    assert str(answers).splitlines() == [
        "it is<|MASK|>  (0:00 to 1:02:05 in 2 windows, seen and heard)",
        "   answer      probability  fits best",
        "1  a red ball  75.0%        0:40 to 1:02:05",
        "2  the end     25.0%        0:00 to 0:40",
    ]
    found = json.loads(json.dumps(answers.to_json()))
    assert found["windows"] == [[0, 40], [40, 3725]]
    assert [answer["text"] for answer in found["answers"]] == ["a red ball", "the end"]
    assert found["answers"][0]["best"] == [40, 3725]
