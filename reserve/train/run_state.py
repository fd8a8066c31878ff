"""What became of a run's last start, in a file: running, stopped, finished, or failed and why."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import TracebackType
from typing import Self

from reserve.fs import write_text_atomic
from reserve.terminal import printable_lines

logger = logging.getLogger(__name__)

STATE_NAME = "state.json"
_MOST_LETTERS = 2000


class RunState:
    """Keeps `run`/state.json: "running" inside the `with` block, then what `end` said or the error that ended it.

    Only the first rank writes it. A process that is killed leaves "running". A file that cannot be written is logged.
    """

    def __init__(self, run: Path, *, writes: bool) -> None:
        self._run, self._writes, self._end = run, writes, "finished"

    def end(self, state: str) -> None:
        """Says what the run will be when the block ends."""
        self._end = state

    def __enter__(self) -> Self:
        self._write("running")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._write(self._end)
        else:
            self._write("failed", f"{type(error).__name__}: {error}" if f"{error}" else type(error).__name__)

    def _write(self, state: str, reason: str = "") -> None:
        if not self._writes:
            return
        try:
            text = {"state": state, "reason": printable_lines(reason)[:_MOST_LETTERS]}
            write_text_atomic(self._run / STATE_NAME, json.dumps(text) + "\n")
        except OSError as error:
            logger.warning("the run's state could not be written: %s", error)


def read_state(run: Path) -> tuple[str, str]:
    """The state and the reason in a run's state.json; empty where there is none or it is damaged."""
    try:
        stored = json.loads((run / STATE_NAME).read_text("utf-8"))
        state, reason = stored["state"], stored["reason"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "", ""
    return (state, reason) if isinstance(state, str) and isinstance(reason, str) else ("", "")
