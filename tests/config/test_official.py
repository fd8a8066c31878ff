"""The reference's YAML, and errors for settings that are not supported."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from reserve.config import Config, DataConfig, ModelConfig, TrainConfig
from reserve.config.official import load_model_config, load_official_config

# The settings in the reference's base configuration.
BASE = {
    "data": {
        "train_fns": "gs://somewhere/train{:05d}of32800.tfrecord",
        "num_train_files": 32768,
        "use_audio_token_prob": 0.5,
        "random_scale_max": 1.1,
        "random_scale_min": 1.05,
        "fft_hop_length": 588,
        "fft_window_size": 1536,
        "num_mels": 64,
        "sample_rate": 22050,
        "spec_size": 188,
        "mask_rate": 0.25,
        "num_audio2text_seqs": 1,
        "num_text2audio_seqs": 1,
        "num_text_seqs": 1,
        "num_text_seqs_in_record": 1,
        "num_segments": 16,
        "num_segment_groups": 2,
        "num_audio_subsegments": 3,
        "seq_len": 640,
        "lang_seq_len": 160,
        "num_text_spans_to_include": 48,
        "text_span_budget": 38,
    },
    "model": {
        "hidden_size": 768,
        "joint_num_layers": 12,
        "use_bfloat16": True,
        "audio_num_layers": 12,
        "audio_patch_size": 2,
        "audio_seq_length": 60,
        "audio_token_length": 6,
        "output_grid": [12, 20],
        "vit_patch_size": 16,
        "vit_pooling_ratio": 2,
        "vit_num_layers": 12,
        "span_num_layers": 4,
        "text_span_length": 15,
    },
    "device": {"use_tpu": True, "num_tpu_cores": 512, "batch_size": 1024},
    "optimizer": {
        "learning_rate": 0.0004,
        "num_train_steps": 750000,
        "num_warmup_steps": 3750,
        "weight_decay_rate": 0.1,
        "beta_2": 0.98,
        "adafactor": False,
        "use_bfloat16_adam": True,
        "eps": 0.000001,
        "use_bfloat16_weights": False,
    },
}


def write(path: Path, section: str | None = None, **changes: object) -> Path:
    settings = {name: dict(values) for name, values in BASE.items()}
    if section is not None:
        settings[section] |= changes
    path.write_text(yaml.safe_dump(settings))
    return path


def test_base_is_the_default_configuration(tmp_path: Path) -> None:
    assert load_official_config(write(tmp_path / "base.yaml")) == Config()


def test_every_section_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "model", hidden_size=1024, use_bfloat16=False, output_grid=[18, 32])
    config = load_official_config(path)
    assert config.model == ModelConfig(hidden_size=1024, output_grid=(18, 32))
    assert config.train.precision == "float32"
    assert load_official_config(write(path, "data", mask_rate=0.2)).data == DataConfig(mask_rate=0.2)
    assert load_official_config(write(path, "optimizer", learning_rate=3e-4)).optimizer.learning_rate == 3e-4
    assert load_official_config(write(path, "device", batch_size=64)).train == TrainConfig(batch_size=64)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("data", {"num_text_seqs": 2}, "data.num_text_seqs must be 1, the only supported value; got 2"),
        ("data", {"num_text2audio_seqs": 0}, "data.num_text2audio_seqs must be 1"),
        ("data", {"num_audio2text_seqs": True}, "data.num_audio2text_seqs must be 1.*; got True"),
        ("optimizer", {"adafactor": True}, "optimizer.adafactor must be False"),
        ("optimizer", {"use_bfloat16_weights": True}, "optimizer.use_bfloat16_weights must be False"),
        ("data", {"seq_length": 640}, "data.seq_length is not known. Did you mean seq_len\\? Allowed are .*seq_len"),
        ("model", {"hidden_size": 768.0}, "model.hidden_size must be int; got float 768.0"),
        ("model", {"hidden_size": "large"}, "model.hidden_size must be int; got str 'large'"),
        ("model", {"output_grid": 12}, "model.output_grid must be a list of 2; got 12"),
        ("model", {"output_grid": [12, "20"]}, r"model.output_grid\[1\] must be int; got str '20'"),
        ("model", {"use_bfloat16": 1}, "model.use_bfloat16 must be bool; got int 1"),
        ("data", {"mask_rate": 0.9}, "data.mask_rate must be in"),
        ("data", {"mask_rate": float("nan")}, "data.mask_rate must be float; got float nan"),
        ("data", {"lang_seq_len": 23}, "data.lang_seq_len must be at least 24, .*; got 23"),
        ("data", {"seq_len": 37}, "data.seq_len must be at least 38, .*; got 37"),
        (
            "data",
            {"seq_len": 15, "text_span_budget": 14, "num_text_spans_to_include": 1},
            "data.seq_len must be at least 16",
        ),
        ("optimizer", {"learning_rate": "fast"}, "optimizer.learning_rate must be float; got str"),
        ("device", {"batch_size": 0}, "train.batch_size must be at least 1"),
    ],
)
def test_wrong_setting_is_named(section: str, changes: dict[str, object], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "wrong.yaml", section, **changes)
    with pytest.raises(ValueError, match=message):
        load_official_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("#", "must hold sections; got NoneType"),
        ("- 1", "must hold sections; got list"),
        ("model: 5", "wrong.yaml: model must be a map of names to values; got int"),
        ("model:\n", "model must be a map of names to values; got NoneType"),
        ("modell: {}", "modell is not a section; allowed are data, model, optimizer, device"),
        ("a: [", "is not YAML"),
        ("a: !!python/object/apply:os.system ['true']", "is not YAML"),
        ("[" * 5000, "is not YAML"),
    ],
)
def test_wrong_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_official_config(tmp_path / "wrong.yaml")


def test_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"wrong.yaml is not YAML"):
        load_official_config(tmp_path / "wrong.yaml")


def test_model_section_of_our_own_format_is_read(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("train: {seed: 3}\nmodel: {vocab_size: 2048, rotary: standard}\n")
    assert load_model_config(tmp_path / "own.yaml") == ModelConfig(vocab_size=2048, rotary="standard")


def test_file_without_a_model_section_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("train: {seed: 3}\n")
    with pytest.raises(ValueError, match="has no section model"):
        load_model_config(tmp_path / "own.yaml")


def test_the_recorded_configuration_is_read(shared_dir: Path) -> None:
    config = load_official_config(shared_dir / "golden" / "tiny.yaml")
    assert config.model.output_grid == (4, 6)
    assert config.data.num_text_spans == 12
