from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from reserve.cli.app import COMMANDS, build_parser, main
from reserve.config.load import preset_names

ALIASES = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (n, n, n - 1, n - 1) for n in range(98, 122))
"""A few hundred bytes that stand for 2^24 values."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.hiden_size=256"], ["model.hiden_size is not known", "Did you mean hidden_size?", "vit_num_layers"]),
        (["--optimzer.eps=1"], ["there is no section optimzer. Did you mean optimizer? There are data, model"]),
        (["--zzz.eps=1"], ["there is no section zzz. There are data, model, optimizer, train"]),
        (["--model.hidden_size=abc"], ["model.hidden_size", "int", "abc"]),
        (["--model.hidden_size=100"], ["model.hidden_size must be a multiple of 64", "100"]),
        (["--train.precision=fp8"], ["train.precision", "auto", "float32", "bfloat16", "fp8"]),
        (["--config=tyni"], ["no configuration tyni. Did you mean tiny? Presets are base, base_resadapt, large, "]),
        (["--data.num_segments=15"], ["data.num_segments must be a multiple of data.num_segment_groups"]),
        (["--train.batch_size=0"], ["train.batch_size must be at least 1; got 0"]),
        (["--train.seed=-1"], ["train.seed must be at least 0; got -1"]),
        (["--train.seed=9223372036854775808"], ["train.seed must be at most 2^63 - 1; got 9223372036854775808"]),
        (["--model.init_scale=-1"], ["model.init_scale must be above 0; got -1"]),
        (["--data.num_segment_groups=0"], ["data.num_segment_groups must be at least 1; got 0"]),
        (["--data.use_audio_token_prob=7"], ["data.use_audio_token_prob must be in [0, 1]; got 7"]),
        (["--data.random_scale_min=1.2"], ["data.random_scale_min", "at most data.random_scale_max", "1.2 and 1.1"]),
        (["--data.mask_rate=0.01"], ["data.mask_rate must mask one at least of the 48 subsegments", "0.01"]),
        (["--data.num_mels=32"], ["data.num_mels must be 64", "32"]),
        (["--data.fft_hop_length=500"], ["data.spec_size must be 221", "data.fft_hop_length", "188"]),
        (
            ["--data.num_audio_subsegments=4"],
            ["data.num_audio_subsegments", "model.audio_seq_length", "at most", "188"],
        ),
        (["--optimizer.beta_1=2"], ["optimizer.beta_1 must be in [0, 1); got 2"]),
        (["--optimizer.eps=0"], ["optimizer.eps must be above 0; got 0"]),
        (["--optimizer.learning_rate=-1"], ["optimizer.learning_rate must be at least 0; got -1"]),
        (["--train.keep_every=-1"], ["train.keep_every must be at least 0; got -1"]),
        (["--train.keep_best=-1"], ["train.keep_best must be at least 0; got -1"]),
    ],
)
def test_a_wrong_key_or_value_says_which_and_what_is_allowed(arguments, message, capsys, tmp_path):
    assert main(["pretrain", "--videos=x", f"--out={tmp_path}", *arguments]) == 2
    printed = capsys.readouterr().err
    assert all(part in printed for part in message), printed
    assert "Traceback" not in printed


def test_a_wrong_key_in_a_file_is_named(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("model:\n  hiddn_size: 128\n")
    assert main(["pretrain", "--config", str(tmp_path / "bad.yaml"), "--videos=x", f"--out={tmp_path}"]) == 2
    assert "hiddn_size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model: [1", "is not YAML"),
        (b"\xff\xfe", "is not YAML"),
        (b"model: 3", "model must be a map of names to values; got int"),
        (b"", "empty file"),
        (b"#", "must hold sections"),
        (b"train:\n  seed:\n", "train.seed must be int; got nothing"),
        (b"train:\n  seed: 1\n  seed: 2\n", "seed is given twice in one map"),
        (b"train:\n  seed: 1\nmodel: {}\ntrain: {}\n", "train is given twice in one map"),
        (b"train:\n  seed: 2026-99-99\n", "month must be in 1..12"),
        (ALIASES, "must hold at most 10000 values; its aliases make them more"),
        (b"train: &a\n  seed: [*a]\n", "must hold at most 10000 values; its aliases make them more"),
    ],
)
@pytest.mark.parametrize("form", ["--config={}", "--config {}"])
def test_a_broken_configuration_file_is_named(tmp_path, capsys, content, message, form):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    assert main(["pretrain", *form.format(path).split(), "--videos=x", f"--out={tmp_path}"]) == 2
    assert f"reserve: {path}" in (printed := capsys.readouterr().err)
    assert message in printed


def test_a_configuration_may_share_settings_through_aliases(tmp_path, capsys):
    path = tmp_path / "shared.yaml"
    path.write_text("train: {num_workers: &n 0, log_every: 1, keep_checkpoints: &k 2, prepare_workers: *k, seed: *n}\n")
    assert main(["pretrain", f"--config={path}", f"--videos={tmp_path / 'none'}", f"--out={tmp_path}"]) == 1
    assert "no such file or folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("task: dance\n", "the configuration is of the task dance, not of pretraining"),
        ("tokenizer: [1]\n", "tokenizer must be a path; got [1]"),
        ("videos: x\n", "videos must be a list of paths; got 'x'"),
    ],
)
def test_inputs_of_a_run_are_checked(tmp_path, capsys, content, message):
    (tmp_path / "config.yaml").write_text(content)
    assert main(["pretrain", f"--resume={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


def test_out_must_not_be_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["pretrain", "--config=tiny", "--videos=x", f"--out={tmp_path / 'file'}"]) == 2
    assert f"--out must be a folder or a name that is free; {tmp_path / 'file'} is a file" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["--resume={}", "--resume {}"])
def test_resuming_a_folder_that_is_not_a_run_is_an_error(tmp_path, capsys, form):
    assert main(["pretrain", *form.format(tmp_path).split()]) == 2
    assert "not a run's folder, since it has no config.yaml" in capsys.readouterr().err


def test_resume_refuses_another_out(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("videos: [x]\n")
    assert main(["pretrain", f"--resume={tmp_path}", f"--out={tmp_path / 'other'}"]) == 2
    assert f"leave out --out {tmp_path / 'other'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [("jsonargparse", ["backends"], "train"), ("rich.console", ["demo-data", "videos"], "train")],
)
def test_a_missing_package_is_an_error_that_names_the_extra(tmp_path, monkeypatch, capsys, module, command, extra):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    assert main(command) == 1
    printed = capsys.readouterr().err
    assert module in printed
    assert f"pip install 'merlot-reserve[{extra}]'" in printed


def test_missing_arguments_are_named(capsys):
    assert main(["pretrain"]) == 2
    assert "--videos or --shards, and --out" in capsys.readouterr().err


def test_videos_that_do_not_exist_are_named(tmp_path, capsys):
    assert main(["pretrain", "--config=tiny", f"--videos={tmp_path / 'none'}", f"--out={tmp_path / 'run'}"]) == 1
    assert f"{tmp_path / 'none'}: no such file or folder" in capsys.readouterr().err


def test_evaluating_a_folder_that_is_not_a_run_is_an_error(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "--videos=x"]) == 1
    assert "is not a run's folder" in capsys.readouterr().err


@pytest.mark.parametrize("form", [["--config", "tiny"], ["--config=tiny"], ["--conf", "tiny"]])
def test_presets_go_by_name_and_settings_override_them(form, tmp_path, monkeypatch):
    assert preset_names() == ["base", "base_resadapt", "large", "large_resadapt", "tiny"]
    seen = []
    monkeypatch.setattr("reserve.train.fit.fit", lambda task, run, config, **_: seen.append((task, run, config)))
    settings = ["--model.hidden_size=64", "--videos=x", f"--out={tmp_path}"]
    for arguments in ([*form, *settings], [*settings, *form]):
        assert main(["pretrain", *arguments]) == 0
    for task, run, config in seen:
        assert (task.model.hidden_size, task.model.output_grid, run) == (64, (4, 6), tmp_path)
        assert config.train.batch_size == 16
        assert task.videos == (Path("x"),)


def test_a_later_file_overrides_single_settings_of_an_earlier_one(tmp_path, monkeypatch):
    own = tmp_path / "own.yaml"
    own.write_text("train:\n  batch_size: 7\n")
    seen = []
    monkeypatch.setattr("reserve.train.fit.fit", lambda task, run, config, **_: seen.append((task, config)))
    assert main(["pretrain", "--config=tiny", f"--config={own}", "--videos=x", f"--out={tmp_path}"]) == 0
    ((task, config),) = seen
    assert (config.train.batch_size, config.train.num_workers, task.model.output_grid) == (7, 1, (4, 6))


def test_a_file_may_name_the_folder_of_the_run(tmp_path, monkeypatch):
    (tmp_path / "own.yaml").write_text(f"out: {tmp_path / 'run'}\nvideos: [x]\noptimizer: {{eps: 1e-7}}\n")
    seen = []
    monkeypatch.setattr("reserve.train.fit.fit", lambda task, run, config, **_: seen.append((run, config)))
    assert main(["pretrain", f"--config={tmp_path / 'own.yaml'}"]) == 0
    assert main(["pretrain", f"--config={tmp_path / 'own.yaml'}", f"--out={tmp_path / 'other'}"]) == 0
    assert [(run.name, config.optimizer.eps) for run, config in seen] == [("run", 1e-7), ("other", 1e-7)]


def test_the_printed_configuration_is_one(tmp_path, capsys):
    arguments = ["--config=tiny", "--videos=x", "--train.seed=3", f"--out={tmp_path / 'run'}", "--print_config"]
    assert main(["pretrain", *arguments]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "printed.yaml").write_text(printed)
    assert main(["pretrain", f"--config={tmp_path / 'printed.yaml'}", "--print_config"]) == 0
    assert capsys.readouterr().out == printed
    assert "  seed: 3\n" in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert "usage: reserve" in capsys.readouterr().out


def test_backends_prints_both_tables(capsys):
    assert main(["backends"]) == 0
    printed = capsys.readouterr().out
    assert "rotary_attention" in printed
    assert re.search(r"^pyav +file by file +(picked|available)$", printed, flags=re.MULTILINE)


def test_demo_data_refuses_no_videos(tmp_path, capsys):
    assert main(["demo-data", str(tmp_path), "--videos=0"]) == 1
    assert "videos" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["pretrain"], ["finetune", "vcr"], ["zeroshot", "star"]])
def test_torchrun_passes_every_option_on(command):
    """Before Python 3.12 argparse refuses what could be short for several options of torchrun, wherever it stands."""
    from torch.distributed.run import get_args_parser

    parser, options = build_parser([])[1][command[0]], set()
    for name in command[1:]:
        parser = next(action for action in parser._actions if hasattr(action, "_name_parser_map"))._name_parser_map[
            name
        ]
    for action in parser._actions:
        options |= {option for option in action.option_strings if option.startswith("--")}
    assert "--out" in options
    for option in options:
        passed = get_args_parser().parse_args(["-m", "reserve", *command, option, "x"])
        assert passed.training_script_args == [*command, option, "x"]
