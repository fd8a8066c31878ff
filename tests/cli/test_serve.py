"""`reserve serve`: from the command line to the page and back to the shell."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from reserve.cli.app import main
from tests.helpers.served import write_video
from tests.tasks.zero_shot.small_sets import small_model

for _module, _extra in (("uvicorn", "serve"), ("starlette", "serve"), ("faiss", "search"), ("av", "video")):
    pytest.importorskip(_module, reason=f"needs the extra {_extra}")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    small_model().save_pretrained(folder)
    return folder


def test_a_question_is_answered_by_the_model(weights, tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "film.mp4", seconds=6)
    command = [sys.executable, "-m", "reserve", "serve", f"--weights={weights}", "--port=0"]
    process = subprocess.Popen(
        [*command, f"--videos={tmp_path / 'videos'}", f"--folder={tmp_path / 'own'}", "--device=cpu"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    try:
        line = process.stderr.readline()
        assert line.startswith("http://127.0.0.1:"), line
        url = line.split()[0]
        [video] = json.load(urllib.request.urlopen(f"{url}api/videos", timeout=30))["videos"]
        asked = json.dumps({"question": "a man is ___.", "answers": ["running", "asleep"]}).encode()
        request = urllib.request.Request(
            f"{url}api/videos/{video['id']}/ask", asked, {"Content-Type": "application/json"}
        )
        last = urllib.request.urlopen(request, timeout=60).read().decode().splitlines()[-1]
        assert {answer["text"] for answer in json.loads(last)["result"]["answers"]} == {"running", "asleep"}
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert (errors, process.returncode) == ("stopped by SIGINT\n", 0)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name the model with --weights"),
        (["--weights=x", "--upload_mb=0"], "upload_bytes must be at least 1"),
        (["--weights=x", "--upload_mb=9", "--storage_mb=8"], "folder_bytes must be at least upload_bytes"),
        (["--weights=x", "--port=70000"], "a port is from 0 to 65535"),
    ],
)
def test_wrong_usage_is_named_before_anything_is_loaded(options, message, capsys, tmp_path):
    assert main(["serve", *options, f"--folder={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_of_videos_that_is_not_there_is_named(capsys, tmp_path):
    assert main(["serve", "--weights=x", f"--videos={tmp_path / 'none'}", f"--folder={tmp_path}"]) == 1
    assert "none: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(("folder", "videos"), [("a", "a"), ("a/b", "a"), ("a", "a/b")])
def test_videos_and_what_the_server_stores_lie_apart(folder, videos, capsys, tmp_path):
    (tmp_path / videos).mkdir(parents=True)
    assert main(["serve", "--weights=x", f"--videos={tmp_path / videos}", f"--folder={tmp_path / folder}"]) == 2
    assert "must not lie in each other" in capsys.readouterr().err


def test_a_hidden_folder_among_the_videos_may_store(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("reserve.serve.server.serve", lambda app, listening, on_end: None)
    options = [f"--videos={tmp_path}", f"--folder={tmp_path / '.cache' / 'serve'}", "--port=0", "--device=cpu"]
    assert main(["serve", f"--weights={weights}", *options]) == 0


def test_a_server_for_others_warns_and_has_more_names(weights, capsys, caplog, tmp_path, monkeypatch):
    apps = []
    monkeypatch.setattr("reserve.serve.server.serve", lambda app, listening, on_end: apps.append(app))
    caplog.set_level("INFO")
    options = [f"--weights={weights}", f"--folder={tmp_path}", "--port=0", "--device=cpu"]
    assert main(["serve", *options]) == 0
    assert "http://127.0.0.1:" in caplog.text
    assert "anyone who reaches" not in caplog.text
    assert main(["serve", *options, "--host=0.0.0.0", "--names", "gpu-box", "gpu-box.example"]) == 0
    assert apps[-1].names == {"localhost", "gpu-box", "gpu-box.example"}
    assert "anyone who reaches 0.0.0.0 can upload videos" in caplog.text
