"""The server's application over a fake model, for tests of its rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reserve.serve.limits import Limits
from tests.helpers.fake_answering import FakeAnswering
from tests.helpers.media_files import Sound, number_picture, write_media


def write_video(path: Path, seconds: int = 6, codec: str = "libx264", sound: bool = True) -> Path:
    """A small video of a picture a half second, with a quiet tone."""
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(seconds * 44100) / 44100).astype(np.float32)
    audio = "libopus" if path.suffix == ".webm" else "aac"
    rate = 48000 if path.suffix == ".webm" else 44100
    return write_media(
        path,
        frame_times=[number / 2 for number in range(2 * seconds)],
        picture=lambda number: number_picture(number, (96, 128)),
        video_codec=codec,
        sounds=[Sound(tone, rate=rate, codec=audio)] if sound else [],
    )


@dataclass
class Served:
    """A client of a server, the fake model behind it, and the server's own folder."""

    client: Any
    model: FakeAnswering
    folder: Path

    def upload(self, data: bytes, name: str = "film.mp4", **headers: str) -> Any:
        headers = {"Content-Type": "application/octet-stream"} | headers
        return self.client.post("/api/videos", params={"name": name}, content=data, headers=headers)

    def listed(self) -> dict[str, dict[str, Any]]:
        """The videos by name."""
        return {video["name"]: video for video in self.client.get("/api/videos").json()["videos"]}

    def compute(self, path: str, asked: Any) -> dict[str, Any]:
        """The last line of what a work answers."""
        response = self.client.post(path, json=asked)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/x-ndjson"
        return json.loads(response.text.splitlines()[-1])


@contextmanager
def served(folder: Path, videos: Path | None = None, limits: Limits | None = None, **settings: Any) -> Iterator[Served]:
    """Serves `videos` from `folder`; tests that call it skip where the extra is missing."""
    testclient = pytest.importorskip("starlette.testclient", reason="needs the extra serve")
    from reserve.serve.app import make_app
    from reserve.serve.uploads import Storage
    from reserve.serve.video_files import FolderVideos
    from reserve.serve.worker import Worker

    model = FakeAnswering()
    limits = limits or Limits()
    with closing(Storage(folder, limits)) as storage:
        shown = None if videos is None else FolderVideos(videos)
        app = make_app(model, Worker(limits.waiting), storage, videos=shown, **settings)
        with testclient.TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False) as client:
            yield Served(client, model, folder)
