"""The server listens where it is told, and ends when it is told."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reserve.errors import UsageError
from tests.helpers.served import write_video

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("av", reason="needs the extra video")
from reserve.serve.server import bind, is_loopback

PROGRAM = """
import sys
from pathlib import Path
from reserve.serve.app import make_app
from reserve.serve.limits import Limits
from reserve.serve.server import bind, serve
from reserve.serve.uploads import Storage
from reserve.serve.video_files import FolderVideos
from reserve.serve.worker import Worker
from tests.helpers.fake_answering import FakeAnswering

class Held(FakeAnswering):
    def ask(self, *arguments, **settings):
        print("begun", flush=True)
        return super().ask(*arguments, **settings)

model = Held()
model.gate.clear()
worker, videos = Worker(1), FolderVideos(Path(sys.argv[1]))
app = make_app(model, worker, Storage(Path(sys.argv[1]) / "own", Limits()), videos=videos)
with bind("127.0.0.1", 0) as listening:
    print(listening.getsockname()[1], videos.list()[0].id, flush=True)
    serve(app, listening, worker.end)
print("ended", flush=True)
"""


@contextmanager
def started(folder: Path, program: str = PROGRAM) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """A server in a process whose model never answers, its port and the id of its video."""
    write_video(folder / "film.mp4", seconds=1)
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-c", program, str(folder)]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        port, video = process.stdout.readline().split()
        yield process, int(port), video
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def server(tmp_path):
    with started(tmp_path) as found:
        yield found


def ask(port: int, video: str) -> http.client.HTTPConnection:
    """Sends a question and leaves the answer on the way."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = '{"question": "who is ___?", "answers": ["a", "b"]}'
    connection.request("POST", f"/api/videos/{video}/ask", body, {"Content-Type": "application/json"})
    return connection


def test_ctrl_c_ends_a_server_in_the_middle_of_a_work(server):
    process, port, video = server
    connection = ask(port, video)
    assert process.stdout.readline() == "begun\n"
    waiting = ask(port, video)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (output, errors, process.returncode) == ("ended\n", "", 0)
    for each in (connection, waiting):
        last = each.getresponse().read().decode().splitlines()[-1]
        assert json.loads(last) == {"state": "failed", "error": "the server is shutting down"}


def test_the_signal_is_named_also_where_it_was_ignored(tmp_path):
    """As in the background of a shell script, whose commands ignore SIGINT."""
    ignoring = """
import logging, signal
logging.basicConfig(level=logging.INFO, format="%(message)s")
signal.signal(signal.SIGINT, signal.SIG_IGN)
"""
    with started(tmp_path, ignoring + PROGRAM) as (process, port, video):
        connection = ask(port, video)
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
        assert (output, errors.splitlines()[-1], process.returncode) == ("ended\n", "stopped by SIGINT", 0)
        connection.close()


def test_a_visitor_who_leaves_is_not_answered(server):
    process, port, video = server
    running = ask(port, video)
    assert process.stdout.readline() == "begun\n"
    leaving = ask(port, video)
    assert leaving.getresponse().status == 200
    refused = ask(port, video)
    assert refused.getresponse().status == 503  # one may wait
    leaving.close()
    give_up = time.monotonic() + 20
    while (next_one := ask(port, video)).getresponse().status == 503:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    next_one.close()
    running.close()


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"cannot listen at 127\.0\.0\.1 port {port}: Address already in use"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize(("host", "port"), [("no such host", 8000), ("127.0.0.1", 99999), ("127.0.0.1", -1)])
def test_an_address_that_cannot_be_had_is_named(host, port):
    with pytest.raises(UsageError, match=f"cannot listen at {host} port {port}"):
        bind(host, port)


def test_loopback_addresses_are_told_from_others():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "gpu-box", "")))
