"""What the page says follows from the intervals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.learning.arms import AUDIO_OFF, CONTRASTIVE, MASK_LM
from benchmarks.learning.intervals import Interval
from benchmarks.report.learning import finetuning as finetuning_section
from benchmarks.report.learning import objectives as objectives_section
from benchmarks.report.learning import page as learning_page
from benchmarks.report.learning import sounds as sounds_section
from benchmarks.report.learning.objectives import arms_of, points


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_objectives_are_compared_by_their_intervals(objectives):
    text = objectives_section.section("a machine", objectives)
    same_steps, same_time = lines(text, f"- {CONTRASTIVE} beats {MASK_LM}")
    assert "after the same steps" in same_steps
    assert "It reaches the other's last recall by step" in same_steps
    assert "after the same time" in same_time
    assert len(lines(text, f"- {CONTRASTIVE} against {AUDIO_OFF}: no difference shown after the same steps")) == 1
    assert len(lines(text, f"- {CONTRASTIVE} is behind {AUDIO_OFF} after the same time")) == 1
    assert "400 steps of 8 examples" in text
    assert "600 questions about 12 held-out videos" in text


def test_equal_time_gives_dear_steps_fewer(objectives):
    text = objectives_section.section("a machine", objectives)
    assert "After the 160 s of one core" in text  # of audio off: 400 steps of 0.4 s
    assert f"| {MASK_LM} | 160 |" in text
    assert f"| {CONTRASTIVE} | 320 |" in text


def test_outcomes_between_evaluations_are_in_proportion(objectives):
    arm = arms_of(objectives)[CONTRASTIVE]
    assert arm.at(250).value == pytest.approx((arm.outcomes[1].value + arm.outcomes[2].value) / 2)
    assert arm.at(10).value == arm.outcomes[0].value
    assert arm.at(400).value == arm.last.value
    middle = (arm.outcomes[1].value + arm.outcomes[2].value) / 2
    assert arm.first_step_above(middle) == pytest.approx(250)
    assert arm.first_step_above(0.99) is None


def test_differences_are_in_points():
    assert points(Interval(0.1234, -0.02, 0.3)) == "+12.3 points (−2.0 to +30.0)"


def test_finetuning_says_what_pretraining_and_audio_did(finetuning):
    text = finetuning_section.section("a machine", finetuning)
    tvqa, vcr = text.split("### VCR")
    (pretraining,) = lines(tvqa, "- Pretraining")
    assert pretraining.count("beats") == 3
    (audio,) = lines(tvqa, "- Audio in pretraining")
    assert "from sound beats" in audio
    assert "from subtitles no difference shown" in audio
    (without,) = lines(vcr, "- Pretraining")
    assert without.count("no difference shown") == 2
    assert f"- {CONTRASTIVE}: above chance." in text
    assert f"- {AUDIO_OFF}: no difference from chance shown." in text


def test_the_best_rate_of_each_start_is_shown(finetuning):
    best = finetuning_section.best_runs([run for run in finetuning["runs"] if run["settings"]["task"] == "tvqa"])
    for runs in best.values():
        assert [run["settings"]["seed"] for run in runs] == [0, 1, 2]
        assert {run["settings"]["learning_rate"] for run in runs} == {1e-3}


def test_of_rates_that_are_alike_the_lowest_is_shown_with_all_its_seeds(finetuning):
    """The one that the study used for the further seeds."""
    for run in finetuning["runs"]:
        if "tuning" in run:
            run["tuning"]["right"] = {kind: [4.0] for kind in run["right"]}
        elif run["settings"]["task"] != "star":
            run["settings"]["learning_rate"] = 1e-4
    text = finetuning_section.section("a machine", finetuning)
    assert "seeds: 3;" in text
    assert len(lines(text, f"| {CONTRASTIVE} | 0.0001 (lowest tried) |")) == 2


def test_starts_of_other_numbers_of_seeds_are_refused(finetuning):
    runs = finetuning["runs"]
    first = next(run for run in runs if run["settings"]["seed"] == 1)
    with pytest.raises(ValueError, match="tvqa has other numbers of seeds from each start"):
        finetuning_section.section("a machine", {"runs": [run for run in runs if run is not first]})


def test_what_one_seed_shows_is_not_an_interval(finetuning, objectives):
    one = {"runs": [run for run in finetuning["runs"] if run["settings"]["seed"] == 0], "provenance": {}}
    assert "points (interval unknown)" in finetuning_section.section("a machine", one)
    objectives["runs"] = [run for run in objectives["runs"] if run["settings"]["seed"] == 0]
    text = objectives_section.section("a machine", objectives)
    assert "% (interval unknown)" in text


def test_runs_that_guess_are_named_and_others_are_not(objectives):
    """However much the seeds differ."""
    runs = [run for run in objectives["runs"] if run["settings"]["arm"] == MASK_LM]
    runs[1]["right"][-1] = [1.0, 0.0] * 6  # 1%, which is chance
    (line,) = [line for line in objectives_section.section("a machine", objectives).splitlines() if "not above" in line]
    assert line.startswith(f"- {MASK_LM}: 1 of the runs did not learn to answer at this budget (1.0%,")


def test_a_rate_at_the_end_of_those_tried_is_marked(finetuning):
    text = finetuning_section.section("a machine", finetuning)
    assert len(lines(text, f"| {CONTRASTIVE} | 0.001 (highest tried) |")) == 2


def test_the_days_of_all_runs_are_named(tmp_path, objectives):
    folder = tmp_path / "a-machine"
    folder.mkdir()
    (folder / "learning_objectives.json").write_text(json.dumps(objectives))
    assert "Measured 2026-01-02 on" in learning_page.page(tmp_path)
    early = objectives["runs"][0]["provenance"] | {"time": "2026-01-01T22:00:00+00:00"}
    objectives["runs"][0]["provenance"] = early
    (folder / "learning_objectives.json").write_text(json.dumps(objectives))
    assert "Measured 2026-01-01 to 2026-01-02 on" in learning_page.page(tmp_path)


def test_sounds_say_what_helped_and_what_did_not(sounds):
    text = sounds_section.section("a machine", sounds)
    assert len(lines(text, "- frozen, pretrained beats frozen, untrained")) == 1
    assert len(lines(text, "- frozen, pretrained is behind mel statistics")) == 1
    assert len(lines(text, "- finetuned, pretrained against finetuned, untrained: no difference shown")) == 1


def test_the_page_names_the_command_of_what_was_not_measured(tmp_path, objectives):
    folder = tmp_path / "a-machine"
    folder.mkdir()
    (folder / "learning_objectives.json").write_text(json.dumps(objectives))
    text = learning_page.page(tmp_path)
    assert "commit 0123456789," in text
    assert "Not measured: `python -m benchmarks.learning.finetuning" in text
    (name,) = learning_page.plots(tmp_path)
    assert f"](figures/{name})" in text


def test_the_plot_shows_each_arm(tmp_path, objectives):
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.svg"
    objectives_section.draw(objectives, path)
    drawn = path.read_text("utf-8")
    assert all(name in drawn for name in (CONTRASTIVE, MASK_LM, AUDIO_OFF, "recall@1"))


def test_bands_hold_the_means(objectives):
    for arm in arms_of(objectives).values():
        for outcomes in arm.outcomes:
            value, low, high = outcomes.interval()
            assert low <= value <= high
            assert value == pytest.approx(np.mean(outcomes.by_run))
