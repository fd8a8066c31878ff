"""Tells a visitor how a work goes until it is done: one JSON object a line."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from reserve.errors import BadInput, CheckpointError, UsageError
from reserve.serve.worker import Ended, Job, Worker

_SECONDS_BETWEEN = 0.5

logger = logging.getLogger(__name__)


class JobResponse(StreamingResponse):
    """Lines of application/x-ndjson, at least two a second, so that it shows when the visitor has gone: a work that has
    not begun is then dropped.

    `{"state": "waiting", "ahead": 2}`, `{"state": "running", "done": 3, "total": 12}` and at the end
    `{"state": "done", "result": ...}`, with the result as `to_json` gives it, or `{"state": "failed", "error": "..."}`,
    with messages as `shown` gives them.
    """

    def __init__(
        self, job: Job, worker: Worker, to_json: Callable[[Any], Any], shown: Callable[[str], str] = str
    ) -> None:
        self.job = job
        super().__init__(_lines(job, worker, to_json, shown), media_type="application/x-ndjson")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.cancel()


async def _lines(
    job: Job, worker: Worker, to_json: Callable[[Any], Any], shown: Callable[[str], str]
) -> AsyncIterator[str]:
    finished = asyncio.wrap_future(job.future)
    # A work may fail when its visitor has gone; asyncio would then report an error that nobody retrieved.
    finished.add_done_callback(lambda future: future.cancelled() or future.exception())
    while not finished.done() and not worker.ended:
        ahead = worker.ahead_of(job)
        if ahead is None:
            yield _line(state="running", done=job.done, total=job.total)
        else:
            yield _line(state="waiting", ahead=ahead)
        await asyncio.wait({finished}, timeout=_SECONDS_BETWEEN)
    if not finished.done() or finished.cancelled():
        yield _line(state="failed", error="the server is shutting down")
        return
    error = finished.exception()
    if error is None:
        yield _line(state="done", result=to_json(finished.result()))
    else:
        yield _line(state="failed", error=shown(message_of(error)))


def message_of(error: BaseException) -> str:
    """What a visitor reads about an error. What is not their doing goes to the server's log alone."""
    if isinstance(error, BadInput | CheckpointError | Ended | UsageError | ValueError):
        return str(error)
    logger.error("a request failed", exc_info=error)
    return "the server failed; its log says why"


def _line(**content: Any) -> str:
    return json.dumps(content, allow_nan=False) + "\n"
