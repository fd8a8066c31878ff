"""One training and one held-out video, made once for all tests of what make_videos writes."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from reserve.synthetic import make_videos


@dataclass(frozen=True)
class MadeVideos:
    train: Path
    heldout: Path


@pytest.fixture(scope="session")
def made_videos(tmp_path_factory) -> MadeVideos:
    pytest.importorskip("av", reason="needs the extra video")
    pytest.importorskip("espeakng_loader", reason="needs the extra demo")
    train, heldout = make_videos(tmp_path_factory.mktemp("videos"), videos=2, seed=3, held_out=1, workers=1)
    return MadeVideos(*train, *heldout)
