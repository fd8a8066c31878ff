"""The page is complete, self-contained, and safe against hostile text in videos."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from reserve.config import Config, OptimizerConfig, TrainConfig
from reserve.data.store import save_segments
from reserve.data.types import VideoMetadata, Word
from reserve.errors import Stopped
from reserve.report import write_report
from reserve.report.page import bar_scale
from reserve.report.stored import read_evaluation
from reserve.tasks import TASKS
from reserve.tasks.pretrain.evaluation import Evaluation
from reserve.tasks.pretrain.objective import PretrainPairs
from reserve.tasks.pretrain.ranking import rank
from reserve.tasks.pretrain.task import Pretrain
from reserve.tasks.scores import Score, TaskScores
from reserve.tasks.task import Figures
from reserve.train.evaluate import store_evaluation
from reserve.train.run_folder import write_run_settings
from reserve.train.run_state import locked_run
from tests.helpers.html_page import Page
from tests.helpers.random_rankings import evaluate_at_random
from tests.helpers.small_stores import DATA, MODEL, make_dataset, make_segments, make_stores

CONFIG = Config(
    data=DATA,
    model=MODEL,
    train=TrainConfig(batch_size=4),
    optimizer=OptimizerConfig(num_train_steps=40, num_warmup_steps=4),
)
NAMES = ("loss", *PretrainPairs._fields, "span_text2audio", "span_audio2text", "span_random_text")


def report(run, evaluation=None) -> str:
    """The page of a run with this evaluation."""
    write_run_settings(run, Pretrain.of(CONFIG, ["videos"]), CONFIG)
    if evaluation is not None:
        store_evaluation(run, evaluation)
    return write_report(run).read_text("utf-8")


def words(text: str) -> str:
    return " ".join("".join(Page(text).text).split())


def metrics(run, steps=20):
    lines = [
        {
            "step": step,
            **dict.fromkeys(NAMES, 5.0 - step / 10),
            "examples_per_second": 30.0,
            "share_waiting": 0.01,
            "host_memory_gb": 1.5,
            **({"failed_writes": 2, "skipped_examples": 3} if step > 10 else {}),
        }
        for step in range(1, steps + 1)
    ]
    write_lines(run / "metrics.jsonl", lines)
    heldout = [{f"{name}_recall_at_1": step / 100 for name in PretrainPairs._fields} for step in (10, 20)]
    heldout = [
        {"step": step, **line, "stuff_to_span_chance_at_1": 0.01} for step, line in zip((10, 20), heldout, strict=True)
    ]
    write_lines(run / "evaluations.jsonl", heldout)


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def text(tmp_path_factory, dataset, evaluation) -> str:
    run = tmp_path_factory.mktemp("my-run")
    metrics(run)
    text = report(run, evaluation)
    assert text == (run / "report.html").read_text("utf-8")
    assert not list(run.glob("*.partial"))
    return text


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
    assert [found["id"] for tag, found in page.elements if tag == "section"] == [
        *("figures", "held-out", "curves", "machine", "troubles", "segments"),
    ]
    assert page.count("article", class_="segment") == 6
    assert page.count("svg") == 1 + 3 + 3
    assert page.count("img", class_="plot") == 6
    text_content = words(text)
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
    text = report(tmp_path, evaluate_at_random(dataset))
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
    text = report(tmp_path, evaluate_at_random(dataset))
    assert "vid?o.mp4" in "".join(Page(text).text)


@pytest.mark.parametrize("content", [None, "", '{"step": 1'], ids=["no file", "empty", "cut short"])
def test_a_run_without_metrics_says_so(tmp_path, dataset, evaluation, content):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    page = Page(report(tmp_path, evaluation))
    assert "no training metrics" in "".join(page.text)
    assert page.count("svg") == 0


def test_metrics_of_a_diverged_run_are_drawn(tmp_path, dataset, evaluation):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 5.0}\n{"step": 2, "loss": null}\n')
    assert Page(report(tmp_path, evaluation)).count("svg") == 1


def test_one_example_is_enough(tmp_path):
    dataset = make_dataset(make_stores(tmp_path, videos=1, segments=5), training=False)
    page = Page(report(tmp_path, evaluate_at_random(dataset)))
    assert "on 1 held-out example from 1 video" in " ".join("".join(page.text).split())
    assert 1 <= page.count("article") <= DATA.num_segments


def test_nan_scores_give_a_page_at_chance(tmp_path, dataset):
    evaluation = evaluate_at_random(dataset, value=math.nan)
    text_content = words(report(tmp_path, evaluation))
    assert "cosine –" in text_content
    assert not re.search(r"\bnan\b", text_content, flags=re.IGNORECASE)


def test_problems_without_queries_are_dashes(tmp_path, dataset, evaluation):
    frames = evaluation.rankings[0]
    nothing = torch.zeros(0, 4)
    empty = [
        rank(name, nothing, nothing, torch.zeros(0, dtype=torch.int64), frames.places[:0])
        for name in ("text_to_audio", "stuff_to_span")
    ]
    page = Page(report(tmp_path, Evaluation(1, dataset, [frames, *empty])))
    assert "0 queries, 0 candidates" in "".join(page.text)
    assert page.count("i", class_="recall") == 1 + 1  # one of the frames, one in the legend
    assert page.count("article") == 6


def test_the_scale_of_the_bars_is_logarithmic_and_includes_chance(evaluation, tmp_path):
    store_evaluation(tmp_path, evaluation)
    scale = bar_scale(read_evaluation(tmp_path / "evaluation.json").rankings)
    assert scale.low == 0.01
    assert (scale(0.01), scale(0.1), scale(1.0), scale(0.0)) == (0, 50, 100, 0)
    assert scale.ticks == [(0, "1%"), (50, "10%"), (100, "100%")]


def test_numbers_on_the_page_are_rounded_for_reading(text):
    assert not re.search(r">\d+\.\d{5,}", re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL))


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
    with locked_run(tmp_path):
        text = words(report(tmp_path))
    assert "running at step 0 of 40" in text
    assert "no training metrics" in text


@pytest.mark.parametrize(
    ("error", "shown"),
    [(None, "finished at step 20 of 40"), (Stopped("SIGTERM", Path("x")), "stopped at step 20 of 40")],
)
def test_the_page_says_what_became_of_the_run(tmp_path, error, shown):
    metrics(tmp_path)
    with suppress(Stopped), locked_run(tmp_path):
        if error is not None:
            raise error
    text = report(tmp_path)
    assert shown in words(text)
    assert 'style="width:50.0%"' in text


def test_a_run_that_was_killed_is_not_running(tmp_path):
    metrics(tmp_path)
    (tmp_path / "state.json").write_text('{"state": "running", "reason": ""}')
    (tmp_path / ".lock").touch()
    assert "killed at step 20 of 40" in words(report(tmp_path))


def test_a_run_that_failed_says_why(tmp_path):
    metrics(tmp_path)
    with pytest.raises(ValueError), locked_run(tmp_path):
        raise ValueError("the model has <b>diverged</b>")
    text = report(tmp_path)
    assert "failed at step 20 of 40 ValueError: the model has <b>diverged</b>" in words(text)
    assert not Page(text).count("b", class_="")


def test_a_line_that_is_half_written_is_left_out(tmp_path):
    metrics(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "loss"')
    assert "20 of 40" in words(report(tmp_path))


def test_troubles_are_listed_with_their_first_step(text):
    assert "damaged samples, each replaced by another exampleskipped_examples 311" in words(text)
    assert "lines of metrics that could not be written at oncefailed_writes 211" in words(text)


def test_a_run_without_troubles_says_so(tmp_path):
    write_lines(tmp_path / "metrics.jsonl", [{"step": 1, "loss": 1.0}])
    assert "Nothing that the metrics count." in words(report(tmp_path))


def test_segments_of_another_evaluation_are_not_shown(tmp_path, evaluation):
    """As where the evaluation is being written."""
    report(tmp_path, evaluation)
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    (tmp_path / "evaluation.json").write_text(json.dumps(stored | {"step": 260}))
    page = Page(write_report(tmp_path).read_text("utf-8"))
    assert page.count("article") == 0
    assert page.count("section", id="figures") == 1


@pytest.mark.parametrize("name", ["evaluation.json", "evaluation_details.json"])
def test_a_damaged_evaluation_is_named_and_the_rest_is_shown(tmp_path, evaluation, name):
    metrics(tmp_path)
    report(tmp_path, evaluation)
    (tmp_path / name).write_text('{"step": "<script>"}')
    page = Page(write_report(tmp_path).read_text("utf-8"))
    assert f"Not shown, since it is damaged: {name}" in "".join(page.text)
    assert page.count("section", id="curves") == 1
    assert page.count("article") == page.count("script") == 0


def finetuned(run, monkeypatch, evaluation=None) -> str:
    from tests.helpers.classifier_task import Classify

    monkeypatch.setitem(TASKS, "classify", "tests.helpers.classifier_task:Classify")
    write_run_settings(run, Classify(), CONFIG)
    if evaluation is not None:
        store_evaluation(run, evaluation)
    return write_report(run).read_text("utf-8")


def test_a_finetuned_run_shows_its_own_metrics(tmp_path, monkeypatch):
    write_lines(tmp_path / "metrics.jsonl", [{"step": s, "loss": 1.0, "accuracy": s / 10} for s in (1, 2)])
    write_lines(tmp_path / "evaluations.jsonl", [{"step": s, "accuracy": s / 10, "seconds": 3.0} for s in (1, 2)])
    text = finetuned(tmp_path, monkeypatch, Figures(2, {"accuracy": 0.25}))
    page = Page(text)
    assert page.count("svg") == 2 + 1
    assert "MERLOT Reserve, classify, evaluated after 2 steps" in words(text)
    assert "accuracy 25.0% – – –" in words(text)
    assert "Chance" not in words(text)


def test_scores_are_shown_with_interval_and_chance(tmp_path, monkeypatch):
    scores = (
        Score("accuracy", 0.25, 0.2, 0.3, 40, 0.125),
        Score("distance", 12.5, math.nan, math.nan, 3),
        Score("nothing", math.nan, math.nan, math.nan, 0),
    )
    text = words(finetuned(tmp_path, monkeypatch, TaskScores("classify", "val", scores, step=3)))
    assert "accuracy 25.0% 20.0% to 30.0% 12.5% 40" in text
    assert "distance 12.5 – – 3" in text
    assert "nothing – – – 0" in text


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(ValueError, match="is not a run's folder"):
        write_report(tmp_path)
