"""VCR from its files to predictions."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
from dataclasses import replace

import pytest
import torch

from reserve.checkpoint.official import save_official
from reserve.cli import main
from reserve.config import FitConfig, ModelConfig, OptimizerConfig, TrainConfig
from reserve.config.load import plain_values, write_yaml
from reserve.errors import RESUMABLE, BadInput
from reserve.model.finetuned import FinetunedReserve
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.vcr.dataset import VcrSettings
from reserve.tasks.vcr.task import Vcr
from reserve.train.evaluate import evaluate_run
from reserve.train.fit import fit
from tests.helpers.ranks import free_ports, run_ranks
from tests.helpers.vcr_folder import SIZES

TRAIN = TrainConfig(
    batch_size=4, num_workers=0, device="cpu", precision="float32", compile="none", log_every=1, checkpoint_every=100
)


def settings(steps, **train):
    optimizer = OptimizerConfig(
        learning_rate=2e-3,
        num_train_steps=steps,
        num_warmup_steps=min(steps, 2),
        do_bias_correction=True,
        weight_decay_rate=0.0,
    )
    return FitConfig(optimizer=optimizer, train=replace(TRAIN, **train))


def task(folder, **changes):
    return Vcr(data=folder, model=SIZES, examples=VcrSettings(lang_seq_len=48), **changes)


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_handful_of_questions_is_learnt_and_predicted(vcr_folder, tmp_path):
    run = tmp_path / "run"
    fit(task(vcr_folder), run, settings(30))
    lines = metrics(run)
    assert lines[0]["loss"] > 1.2
    assert lines[-1]["loss"] < 0.3
    assert {"accuracy", "q_to_a", "qa_to_r"} <= lines[-1].keys()
    # Red is right in val too, wherever it stands.
    scores = evaluate_run(run, [])
    assert [score.value for score in scores.scores] == [1, 1, 1]
    assert [score.chance for score in scores.scores] == [0.25, 0.25, 0.0625]
    assert json.loads((run / "evaluation.json").read_text())["scores"][2]["name"] == "Q->AR"
    rows = list(csv.reader((run / "predictions" / "vcr_val.csv").open()))
    assert rows[0][0] == "annot_id"
    assert [row[0] for row in rows[1:]] == [f"val-{n}" for n in range(4)]


def test_the_test_split_gives_the_leaderboards_file(vcr_folder, tmp_path):
    run = tmp_path / "run"
    fit(task(vcr_folder), run, settings(1))
    assert evaluate_run(run, [], split="test").scores == ()
    rows = list(csv.reader((run / "predictions" / "vcr_test.csv").open()))
    assert rows[0] == [
        "annot_id",
        *(f"answer_{i}" for i in range(4)),
        *(f"rationale_conditioned_on_a{i}_{j}" for i in range(4) for j in range(4)),
    ]
    assert len(rows) == 5
    for row in rows[1:]:
        values = torch.tensor([float(value) for value in row[1:]]).view(5, 4)
        torch.testing.assert_close(values.sum(1), torch.ones(5))
    assert (run / "evaluation_test.json").exists()


def test_training_starts_from_a_folder_and_resumes_without_it(vcr_folder, tmp_path):
    torch.manual_seed(0)
    start = FinetunedReserve(SIZES)
    start.save_pretrained(tmp_path / "start")
    first = task(vcr_folder, weights=str(tmp_path / "start"))
    # The first step has rate 0.
    checkpoint = fit(first, tmp_path / "run", settings(1))
    trained = FinetunedReserve.from_pretrained(checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), start.parameters(), strict=True))
    (tmp_path / "start").rename(tmp_path / "gone")
    fit(first, tmp_path / "run", settings(2))
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2]


def test_questions_without_a_picture_are_left_out_and_counted(changed_folder, tmp_path, caplog):
    (changed_folder / "vcr1images" / "movie" / "train_3.jpg").unlink()
    (changed_folder / "vcr1images" / "movie" / "train_2.json").unlink()
    caplog.set_level(logging.WARNING)
    fit(task(changed_folder), tmp_path / "run", settings(1, batch_size=2))
    assert "2 of 4 questions of the split train are left out, since their picture or metadata is missing" in caplog.text
    assert "(movie/train_2.json, …)" in caplog.text
    (changed_folder / "vcr1images" / "movie" / "val_0.jpg").unlink()
    evaluation = evaluate_run(tmp_path / "run", [])
    assert evaluation["Q->A"].count == 3
    assert evaluation.notes[0].startswith("1 of 4 questions of the split val are left out")
    assert [row["annot_id"] for row in csv.DictReader((tmp_path / "run/predictions/vcr_val.csv").open())] == [
        "val-1",
        "val-2",
        "val-3",
    ]
    for path in (changed_folder / "vcr1images" / "movie").glob("train*"):
        path.unlink()
    with pytest.raises(BadInput, match=r"metadata of none of the 4 questions .*; they come from visualcommonsense.com"):
        fit(task(changed_folder), tmp_path / "other", settings(1))


def test_the_command_checks_a_folder(changed_folder, capsys):
    assert main(["finetune", "vcr", "--data", str(changed_folder), "--check"]) == 0
    assert "train: 4 questions about 4 pictures" in capsys.readouterr().out
    (changed_folder / "vcr1images" / "movie" / "val_1.jpg").unlink()
    (changed_folder / "test.jsonl").unlink()
    assert main(["finetune", "vcr", "--data", str(changed_folder), "--check"]) == 1
    printed = capsys.readouterr().out
    assert "1 of 4 val pictures are missing" in printed
    assert "test.jsonl does not exist: VCR's test questions, from visualcommonsense.com" in printed


def test_the_check_goes_on_with_the_other_splits(changed_folder, capsys):
    path = changed_folder / "train.jsonl"
    path.write_text(path.read_text().replace('"question"', '"query"', 1))
    assert main(["finetune", "vcr", "--data", str(changed_folder), "--check"]) == 1
    printed = capsys.readouterr().out
    assert "val: 4 questions about 4 pictures" in printed
    assert "train.jsonl, line 1 has no 'question'" in printed


def test_the_command_trains_evaluates_and_resumes(vcr_folder, tmp_path, capsys):
    torch.manual_seed(0)
    FinetunedReserve(SIZES).save_pretrained(tmp_path / "start")
    shared = ["--train.num_workers=0", "--train.precision=float32", "--train.compile=none", "--train.batch_size=4"]
    paths = ["--data", str(vcr_folder), "--weights", str(tmp_path / "start"), "--out", str(tmp_path / "run")]
    assert main(["finetune", "vcr", *paths, *shared, "--epochs=4", "--examples.lang_seq_len=48"]) == 0
    assert "Q->AR" in capsys.readouterr().out
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "num_train_steps: 4" in config
    assert "do_bias_correction: true" in config
    assert main(["finetune", "vcr", *paths, *shared]) == 2
    assert "already holds a run" in capsys.readouterr().err
    resumed = ["--resume", str(tmp_path / "run"), "--optimizer.num_train_steps=5"]
    assert main(["finetune", "vcr", *resumed, "--out=elsewhere"]) == 2
    assert "--resume continues a run in its own folder; leave out --out" in capsys.readouterr().err
    assert main(["finetune", "vcr", *resumed]) == 0
    assert metrics(tmp_path / "run")[-1]["step"] == 5


def test_the_command_evaluates_finetuned_weights(vcr_folder, tmp_path, capsys):
    torch.manual_seed(0)
    FinetunedReserve(SIZES).save_pretrained(tmp_path / "start")
    paths = ["--data", str(vcr_folder), "--weights", str(tmp_path / "start"), "--out", str(tmp_path / "out")]
    arguments = ["finetune", "vcr", *paths, "--evaluate_only", "--train.num_workers=0", "--train.device=cpu"]
    assert main(arguments) == 0
    assert "Q->A " in capsys.readouterr().out
    assert (tmp_path / "out" / "predictions" / "vcr_val.csv").exists()
    assert not (tmp_path / "out" / "checkpoints").exists()


@pytest.mark.parametrize("official", [False, True])
def test_weights_without_a_head_are_not_evaluated(vcr_folder, tmp_path, capsys, official):
    sizes = ModelConfig(**{name: getattr(SIZES, name) for name in ModelConfig.__dataclass_fields__})
    torch.manual_seed(0)
    pretrained = MerlotReserve(sizes)
    pretrained.save_pretrained(tmp_path / "pretrained")
    save_official(pretrained, tmp_path / "official")
    weights = ["--weights", str(tmp_path / ("official" if official else "pretrained"))]
    if official:
        write_yaml(tmp_path / "sizes.yaml", {"model": plain_values(sizes)})
        weights += ["--sizes", str(tmp_path / "sizes.yaml")]
    arguments = ["finetune", "vcr", "--data", str(vcr_folder), *weights, "--out", str(tmp_path / "out")]
    assert main([*arguments, "--evaluate_only", "--train.num_workers=0"]) == 1
    assert "has no head of 1 output(s): finetune it on vcr first" in capsys.readouterr().err


@pytest.mark.parametrize("again", ["--resume", "--auto_resume"])
def test_a_stopped_run_is_evaluated_once_it_is_through(vcr_folder, tmp_path, capsys, monkeypatch, again):
    torch.manual_seed(0)
    FinetunedReserve(SIZES).save_pretrained(tmp_path / "start")
    paths = ["--data", str(vcr_folder), "--weights", str(tmp_path / "start"), "--out", str(tmp_path / "run")]
    short = ["--train.num_workers=0", "--train.batch_size=4", "--examples.lang_seq_len=48", "--epochs=4"]
    with monkeypatch.context() as context:
        context.setattr(Vcr, "workload", lambda self, batch: os.kill(os.getpid(), signal.SIGINT))
        assert main(["finetune", "vcr", *paths, *short]) == RESUMABLE
    assert "stopped by SIGINT with the checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "run" / "evaluation.json").exists()
    command = ["--resume", str(tmp_path / "run")] if again == "--resume" else [*paths, *short, again]
    assert main(["finetune", "vcr", *command]) == 0
    assert metrics(tmp_path / "run")[-1]["step"] == 4
    assert (tmp_path / "run" / "evaluation.json").exists()


@pytest.mark.parametrize("what", ["--check", "--evaluate_only"])
def test_only_the_first_rank_checks_and_evaluates(what, vcr_folder, tmp_path, capsys, monkeypatch):
    FinetunedReserve(SIZES).save_pretrained(tmp_path / "start")
    monkeypatch.setenv("RANK", "1")
    paths = ["--data", str(vcr_folder), "--weights", str(tmp_path / "start"), "--out", str(tmp_path / "out")]
    assert main(["finetune", "vcr", *paths, what]) == 0
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "out").exists()


def test_a_head_of_several_outputs_is_refused(vcr_folder):
    with pytest.raises(ValueError, match=r"model.outputs must be 1 for VCR; got 3"):
        Vcr(data=vcr_folder, model=replace(SIZES, outputs=3))


def test_an_unknown_split_is_refused(vcr_folder, tmp_path):
    fit(task(vcr_folder), tmp_path / "run", settings(1))
    with pytest.raises(ValueError, match="the split must be one of train, val, test; got 'dev'"):
        evaluate_run(tmp_path / "run", [], split="dev")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs --data"),
        (["--data=x", f"--out={__file__}"], "test_task.py is not a folder"),
        (["--data=x", "--split=dev"], "--split must be one of train, val, test; got dev"),
        (["--data=x", "--epochs=0", "--out=y"], "--epochs must be above 0"),
        (["--data=x"], "needs --out"),
        (["--data=x", "--evaluate_only", "--out=y"], "--evaluate_only needs --weights"),
        (["--config=tiny", "--data=x"], "--config tiny holds settings of pretraining; for the sizes of a model give"),
        (["--weights=nowhere", "--data=x"], "nowhere is neither a folder nor an id"),
    ],
)
def test_wrong_usage_is_named(arguments, message, capsys):
    assert main(["finetune", "vcr", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_official_weights_need_their_sizes(vcr_folder, tmp_path, capsys):
    (tmp_path / "vcr_finetune_base").write_bytes(b"x")
    arguments = ["finetune", "vcr", "--data", str(vcr_folder), "--weights", str(tmp_path / "vcr_finetune_base")]
    assert main([*arguments, "--check"]) == 2
    assert "does not say what model it holds; give --sizes base_resadapt" in capsys.readouterr().err
    assert main([*arguments, "--sizes=base_resadapt", "--check"]) == 0


def _two_ranks(rank, ports, folder, run):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    for steps, port in zip((2, 4), ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        fit(task(folder), run, settings(steps))


def test_two_ranks_resume_and_give_what_one_gives(vcr_folder, tmp_path):
    run_ranks(_two_ranks, free_ports(2), vcr_folder, tmp_path / "two")
    one = fit(task(vcr_folder), tmp_path / "one", settings(2))
    one = fit(task(vcr_folder), tmp_path / "one", settings(4))
    assert [line["step"] for line in metrics(tmp_path / "two")] == [1, 2, 3, 4]
    expected = FinetunedReserve.from_pretrained(one)
    both = FinetunedReserve.from_pretrained(tmp_path / "two" / "checkpoints" / "step_00000004")
    for (name, ours), theirs in zip(both.named_parameters(), expected.parameters(), strict=True):
        # Adam turns the rounding of a tiny gradient into a step: up to the sum of the rates.
        assert (ours - theirs).abs().mean() < 1e-5, name
