from __future__ import annotations

import re

import pytest

from reserve.cli.app import main
from tests.tasks.zero_shot.small_sets import small_model


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    small_model().save_pretrained(folder)
    return folder


def test_answers_and_moments_stand_beside_what_is_true(narrated_videos, weights, tmp_path, capsys):
    pytest.importorskip("faiss", reason="searching needs faiss")
    held_out = narrated_videos / "heldout"
    arguments = ["demo-ask", str(held_out), f"--weights={weights}", f"--index={tmp_path / 'moments'}"]
    assert main([*arguments, "--device=cpu"]) == 0
    out = capsys.readouterr().out
    videos = len(list(held_out.glob("*.mp4")))
    assert len(re.findall(r"^\d .*%   <- true$", out, re.MULTILINE)) == 3
    assert re.search(rf"questions about all {videos} videos: \d+ of {3 * videos} right", out)
    moments = re.findall(r"^  -?0\.\d+  .*\.mp4, [\d.]+ to [\d.]+ s, which shows \w+ \w+ \w+ ", out, re.MULTILINE)
    assert len(moments) == 3


def test_other_folders_are_refused(weights, tmp_path, capsys):
    assert main(["demo-ask", str(tmp_path), f"--weights={weights}"]) == 1
    assert "must be one of the folders that `reserve demo-data` makes: train, heldout" in capsys.readouterr().err
