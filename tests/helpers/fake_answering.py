"""A model seam for the server's tests: it answers from its arguments, and can be held in the middle of a work."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from reserve.data.video import open_video
from reserve.errors import BadInput
from reserve.serve.answering import AnswerFound, AnswersFound, MomentFound, Progress


class FakeAnswering:
    """Ranks answers by their length, and finds a moment every 2 s, later ones more similar.

    While `gate` is clear, works wait in their middle. `started` counts those that have begun.
    """

    identity = "fake"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.started = 0
        self.asked: list[tuple[str, tuple[str, ...], float, float | None]] = []

    def ask(
        self, video: Path, question: str, answers: Sequence[str], *, start: float, stop: float | None
    ) -> AnswersFound:
        self.started += 1
        assert self.gate.wait(30)
        if "<|MASK|>" not in question:
            raise ValueError("a question needs one <|MASK|>")
        if "far" in question:
            raise BadInput(f"{video}: it ends too soon")
        if "bug" in question:
            raise RuntimeError(f"secret of {video}")
        self.asked.append((question, tuple(answers), start, stop))
        ranked = sorted(answers, key=len, reverse=True)
        shares = [len(answer) / sum(map(len, answers)) for answer in ranked]
        return AnswersFound(
            question,
            tuple(AnswerFound(text, share, 1.0, 3.0) for text, share in zip(ranked, shares, strict=True)),
            heard=True,
        )

    def index(self, video: Path, folder: Path, progress: Progress) -> None:
        self.started += 1
        for part in range(4):
            progress(part, 4)
            assert self.gate.wait(30)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "seconds").write_text(str(open_video(video).duration))

    def is_indexed(self, folder: Path) -> bool:
        return (folder / "seconds").exists()

    def search_text(self, indexes: Mapping[str, Path], text: str, most: int) -> list[MomentFound]:
        found = []
        for video, folder in indexes.items():
            seconds = float((folder / "seconds").read_text())
            found += [MomentFound(video, float(at), at + 1.5, at / 100) for at in range(0, int(seconds), 2)]
        return sorted(found, key=lambda moment: -moment.score)[:most]

    def search_sound(
        self, indexes: Mapping[str, Path], video: Path, start: float, stop: float, most: int
    ) -> list[MomentFound]:
        return self.search_text(indexes, f"{video.name} {start} {stop}", most)
