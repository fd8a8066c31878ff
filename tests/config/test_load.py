"""Reading and writing YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from reserve.config.load import read_yaml, write_yaml


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", "+1e-03", "1.0e-3"])
def test_an_exponent_makes_a_number_with_or_without_a_point(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"eps: {text}\nname: {text}x\nquoted: '{text}'\n")
    assert read_yaml(tmp_path / "a.yaml") == {"eps": 1e-3, "name": f"{text}x", "quoted": text}


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    settings = {"text": "1e3", "number": 1e-30, "whole": 10, "list": ["1E-4", 1e22], "none": None}
    write_yaml(tmp_path / "a.yaml", settings)
    assert read_yaml(tmp_path / "a.yaml") == settings
