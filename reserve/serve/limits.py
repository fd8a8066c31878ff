"""What visitors of the page may use of the machine."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """`upload_bytes` is the most for one uploaded file, `folder_bytes` for all that the server stores. `stall_seconds`
    is how long an upload may send nothing. `waiting` is how many questions and searches may wait for the model.
    `body_bytes` is the most for a question or a search as sent."""

    upload_bytes: int = 512 * MEGABYTE
    folder_bytes: int = 8192 * MEGABYTE
    stall_seconds: int = 60
    waiting: int = 8
    body_bytes: int = 2**16
    question_characters: int = 1000
    answers: int = 50
    answer_characters: int = 300
    moments: int = 200

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.folder_bytes < self.upload_bytes:
            raise ValueError(
                f"folder_bytes must be at least upload_bytes, {self.upload_bytes}, for one upload to fit; got "
                f"{self.folder_bytes}"
            )
