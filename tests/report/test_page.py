"""The page is complete, self-contained, and safe against hostile text in videos."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch

from reserve.config import Config, TrainConfig
from reserve.data.store import save_segments
from reserve.data.types import VideoMetadata, Word
from reserve.report import write_report
from reserve.report.page import bar_scale, chance_losses
from reserve.tasks.pretrain.objective import ContrastPairs, PretrainPairs, pretrain_loss
from reserve.tasks.pretrain.ranking import Evaluation, rank
from tests.helpers.html_page import Page
from tests.helpers.random_rankings import evaluate_at_random
from tests.helpers.small_stores import DATA, MODEL, make_dataset, make_segments, make_stores

CONFIG = Config(data=DATA, model=MODEL, train=TrainConfig(batch_size=4))


def metrics(run, steps=20):
    names = ("loss", *PretrainPairs._fields, "span_text2audio", "span_audio2text", "span_random_text")
    lines = [{"step": step, **dict.fromkeys(names, 5.0 - step / 10)} for step in range(1, steps + 1)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def text(tmp_path_factory, dataset, evaluation) -> str:
    run = tmp_path_factory.mktemp("my-run")
    metrics(run)
    path = write_report(run, CONFIG, evaluation)
    assert path == run / "report.html"
    assert not list(run.glob("*.partial"))
    return path.read_text("utf-8")


def test_the_page_is_self_contained(text):
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    page = Page(text)
    assert not page.count("script") + page.count("link") + page.count("iframe")
    sources = [value for _, found in page.elements for name, value in found.items() if name in ("src", "href")]
    assert sources
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    policy = next(found["content"] for tag, found in page.elements if found.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_page_has_every_section(text):
    page = Page(text)
    assert [found["id"] for tag, found in page.elements if tag == "section"] == ["figures", "curves", "segments"]
    assert page.count("article", class_="segment") == 6
    assert page.count("svg") == 3 + 6
    text_content = " ".join("".join(page.text).split())
    assert "after 250 steps, on 6 held-out examples from 3 videos" in text_content
    assert all(problem in text_content for problem in PretrainPairs._fields)
    assert "Evenly spaced through all held-out segments" in text_content


def test_the_table_has_the_evaluations_figures(text, evaluation):
    text_content = "".join(Page(text).text)
    for ranking in evaluation.rankings:
        assert f"{len(ranking.truth)} queries, {ranking.candidates} candidates" in text_content
        recall = ranking.recall(5)
        assert f"{100 * recall:.{2 if recall < 0.1 else 1}f}%" in text_content
        assert f"{ranking.median_rank:g}" in text_content


def test_text_of_videos_is_escaped(tmp_path):
    attacks = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style></p>", "{{7*7}}", "&lt;"]
    segments = make_segments(0, 8, first_number=0, name='<b onclick="x">clip</b>.mp4')
    times = [0.3, 1.2, 2.0, 2.8, 3.6]
    segments.words = [[Word(a, t, t + 0.2) for a, t in zip(attacks, times, strict=True)] for _ in range(8)]
    segments.metadata = VideoMetadata(attacks[0], attacks[1], (attacks[2],))
    save_segments(segments, tmp_path / "a.safetensors")
    dataset = make_dataset([tmp_path / "a.safetensors"], training=False)
    text = write_report(tmp_path, CONFIG, evaluate_at_random(dataset)).read_text("utf-8")
    page = Page(text)
    assert not page.count("script") + page.count("b", onclick="x")
    assert not any("onerror" in found for _, found in page.elements)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{7*7}}" in "".join(page.text)
    assert '<b onclick="x">clip</b>.mp4' in "".join(page.text)


def test_invalid_unicode_is_shown_as_question_marks(tmp_path):
    segments = make_segments(0, 8, first_number=0, name="vid\udce9o.mp4")
    segments.words = [[Word("caf\ud800", 0.3, 0.5)] for _ in range(8)]
    save_segments(segments, tmp_path / "a.safetensors")
    dataset = make_dataset([tmp_path / "a.safetensors"], training=False)
    text = write_report(tmp_path, CONFIG, evaluate_at_random(dataset)).read_text("utf-8")
    assert "vid?o.mp4" in "".join(Page(text).text)


@pytest.mark.parametrize("content", [None, "", '{"step": 1'], ids=["no file", "empty", "cut short"])
def test_a_run_without_metrics_says_so(tmp_path, dataset, evaluation, content):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    page = Page(write_report(tmp_path, CONFIG, evaluation).read_text("utf-8"))
    assert "no training metrics" in "".join(page.text)
    assert page.count("svg") == 6


def test_metrics_of_a_diverged_run_are_drawn(tmp_path, dataset, evaluation):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 5.0}\n{"step": 2, "loss": null}\n')
    assert Page(write_report(tmp_path, CONFIG, evaluation).read_text("utf-8")).count("svg") == 9


def test_one_example_is_enough(tmp_path):
    dataset = make_dataset(make_stores(tmp_path, videos=1, segments=5), training=False)
    page = Page(write_report(tmp_path, CONFIG, evaluate_at_random(dataset)).read_text("utf-8"))
    assert "on 1 held-out example from 1 video" in " ".join("".join(page.text).split())
    assert 1 <= page.count("article") <= DATA.num_segments


def test_nan_scores_give_a_page_at_chance(tmp_path, dataset):
    evaluation = evaluate_at_random(dataset, value=math.nan)
    text_content = "".join(Page(write_report(tmp_path, CONFIG, evaluation).read_text("utf-8")).text)
    assert "cosine –" in text_content
    assert not re.search(r"\bnan\b", text_content, flags=re.IGNORECASE)


def test_problems_without_queries_are_dashes(tmp_path, dataset, evaluation):
    frames = evaluation.rankings[0]
    nothing = torch.zeros(0, 4)
    empty = [
        rank(name, nothing, nothing, torch.zeros(0, dtype=torch.int64), frames.places[:0])
        for name in ("text_to_audio", "stuff_to_span")
    ]
    path = write_report(tmp_path, CONFIG, Evaluation(1, dataset, [frames, *empty]))
    page = Page(path.read_text("utf-8"))
    assert "0 queries, 0 candidates" in "".join(page.text)
    assert page.count("i", class_="recall") == 1 + 1  # one of the frames, one in the legend
    assert page.count("article") == 6


def test_chance_is_the_loss_of_a_constant_model():
    same = torch.ones(1, 8)
    batch = CONFIG.train.batch_size
    masked, rest = DATA.num_masked_subsegments, DATA.num_subsegments - DATA.num_masked_subsegments
    spans = batch * DATA.num_text_spans_to_include
    pairs = PretrainPairs(
        ContrastPairs(*[same.expand(batch * DATA.num_segments, 8)] * 2),
        ContrastPairs(*[same.expand(batch * masked, 8)] * 2, same.expand(batch * rest, 8)),
        ContrastPairs(*[same.expand(spans, 8)] * 2),
    )
    loss = pretrain_loss(pairs, torch.ones(3), torch.arange(spans) % 3).metrics()
    assert chance_losses(CONFIG) == pytest.approx({name: float(value) for name, value in loss.items()}, abs=1e-4)


def test_the_scale_of_the_bars_is_logarithmic_and_includes_chance(evaluation):
    scale = bar_scale(evaluation.rankings)
    assert scale.low == 0.01
    assert (scale(0.01), scale(0.1), scale(1.0), scale(0.0)) == (0, 50, 100, 0)
    assert scale.ticks == [(0, "1%"), (50, "10%"), (100, "100%")]


def test_numbers_on_the_page_are_rounded_for_reading(text):
    assert not re.search(r">\d+\.\d{5,}", re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL))
