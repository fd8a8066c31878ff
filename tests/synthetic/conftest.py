"""A training and a held-out video of the set that all tests share."""

from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class MadeVideos:
    train: Path
    heldout: Path


@pytest.fixture(scope="session")
def made_videos(narrated_videos) -> MadeVideos:
    return MadeVideos(*(narrated_videos / split / "story-0000.mp4" for split in ("train", "heldout")))
