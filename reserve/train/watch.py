"""Ends every rank, with the reason, when one of them dies, stops or hangs: none waits for ever for a rank that is lost.

A thread of each rank posts heartbeats and reads those of the others; another one judges them, and ends the process
where the main thread does not come back by itself. Both use host memory and the network only, never a GPU.
"""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import torch.distributed as dist

from reserve.config import TrainConfig
from reserve.errors import BadInput
from reserve.train.beats import Beat, Process
from reserve.train.board import Board
from reserve.train.distributed import Ranks, group_timeout, joined_ranks
from reserve.train.judge import Judge, Verdict

logger = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds that the main thread has to come back from what it waits for, once a rank is lost. Gloo's communication fails
by itself when a process dies; NCCL's may not."""
LINGER = 5.0
"""Seconds that a rank waits at its end until the others know why it ends."""
LEAVING = 60.0
"""Seconds that a rank has to leave the process group."""
LAST_RESORT = 20.0
"""Seconds after which a process that is being ended exits, whatever its last messages wait for."""


@contextmanager
def watched_ranks(config: TrainConfig, stopping: Callable[[], bool] = lambda: False) -> Iterator[tuple[Ranks, Watch]]:
    """`joined_ranks` under a `Watch`, which begins before the ranks join and ends when this one has left them.

    Raises, in place of an error of communication: RankLost naming the rank that is lost, or RuntimeError with the
    message of the rank that failed.
    """
    timeout = group_timeout(config.hang_timeout)
    with Watch(config, stopping) as watch, joined_ranks(config.device, timeout) as ranks, watch.reporting(ranks):
        yield ranks, watch


class Watch:
    """Watches over the ranks of the environment, this process among them; a single process has only itself to watch.

    The main thread says by `phase` where it is. Each rank posts a heartbeat ten times in `train.rank_timeout`. What is
    decided is in `Judge`. All ranks take the decision of the first one that has posted it. Then the main thread has
    GRACE seconds to come back with an error; otherwise the stacks of all threads are printed, and the process exits
    with status 75, or 1 where a rank failed with an exception of its own.

    While `stopping()`, since a signal came, the loss of torchrun's store ends nothing: the signal may have ended
    torchrun, and the ranks are saving. train.stop_timeout bounds that.
    """

    def __init__(self, config: TrainConfig, stopping: Callable[[], bool] = lambda: False) -> None:
        self._stopping = stopping
        self._world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self._rank = int(os.environ.get("RANK", "0")) if self._world_size > 1 else 0
        self._process = Process.this()
        self._timeout = config.rank_timeout
        self._interval = min(config.rank_timeout, config.hang_timeout or config.rank_timeout) / 10
        self._poll = min(1.0, self._interval)
        self._judge = Judge(
            self._rank, self._world_size, rank_timeout=config.rank_timeout, hang_timeout=config.hang_timeout
        )
        self._board: Board | None = None
        if self._world_size > 1:
            # Half of it, since a client that finds its connection broken needs another one.
            self._board = Board.from_environment(self._rank, self._world_size, config.rank_timeout / 2)
        self._at = ("joining", 0, 0, False)  # phase, step, phases since it began, patient: changed together
        self._tick = 0
        self._next_beat = 0.0
        self._others: dict[int, Beat] = {}
        self._heard, self._answers, self._refused = 0, 0, False
        self._judged = (0, 0)
        self._found: Verdict | None = None
        self._verdict: Verdict | None = None
        self._deciding = threading.Lock()
        self._wake, self._news = threading.Event(), threading.Event()  # for the two threads
        self._begun = threading.Event()  # every rank has posted a heartbeat, or there is a verdict
        self._decided = threading.Event()  # there is a verdict
        self._told = threading.Event()  # the others know it
        self._back = threading.Event()  # the main thread is not blocked: it has an error
        self._returned = threading.Event()  # the main thread has nothing more to say
        self._left = threading.Event()  # the main thread has left the process group
        self._threads: list[threading.Thread] = []

    def phase(self, name: str, *, step: int | None = None, patient: bool = False) -> None:
        """Says what the main thread does from now on, and that it gets on. All ranks must go through the same phases.

        `step` counts from 0; None is the current one. While a rank is in a `patient` phase, which may take as long as
        it wants, nobody hangs. It costs nothing: no input or output.
        """
        _, before, count, _ = self._at
        self._at = (name, before, count + 1, patient) if step in (None, before) else (name, step or 0, 0, patient)

    @contextmanager
    def reporting(self, ranks: Ranks) -> Iterator[None]:
        """Reports to the other ranks how the body ends; where they are to blame, its error becomes one that says so.

        The ranks end a body that succeeds together, so that none is missed that has ended before the others.
        """
        try:
            # Before its first heartbeat nobody could say which rank was lost.
            self._begun.wait()
            if self._verdict is not None:
                raise self._verdict.error()
            yield
            self.phase("leaving")
            ranks.barrier()
        except BaseException as error:
            self._report(error)
            raise
        self._returned.set()
        self._wake.set()
        for thread in self._threads[:-1]:
            # Not for ever: the store may have stopped.
            thread.join(LINGER)
        # No rank reads the store any more when the first one, which may host it, leaves.
        ranks.barrier()

    def __enter__(self) -> Self:
        if self._board is None:
            self._begun.set()
        for function in [self._talk] * (self._board is not None) + [self._guard]:
            thread = threading.Thread(target=function, name=f"watch-{function.__name__.strip('_')}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and not self._returned.is_set():
                self._report(error)
        finally:
            self._returned.set()
            self._left.set()
            self._wake.set()
            self._news.set()
            for thread in self._threads:
                thread.join(LINGER)

    def _report(self, error: BaseException) -> None:
        """Tells the other ranks of an error of the main thread. Raises what is to blame for it, where it is a rank."""
        self._back.set()
        consequence = self._board is not None and _is_of_communication(error)
        name = self._beat().name
        if consequence:
            self._wake.set()
            self._news.set()
            self._decided.wait(1.5 * self._timeout + 2 * self._poll)
            mine = Verdict("lost", (self._rank,), f"{name} lost touch with ranks that seem to be well: {error}")
        elif isinstance(error, Exception):
            mine = Verdict("failed", (self._rank,), f"{name} failed: {str(error) or type(error).__name__}")
        else:
            mine = Verdict("lost", (self._rank,), f"{name} was interrupted ({type(error).__name__})")
        verdict = self._settle(mine)
        self._returned.set()
        self._told.wait(LINGER)
        if consequence:
            raise verdict.error() from error

    def _beat(self) -> Beat:
        phase, step, count, patient = self._at
        return Beat(self._rank, self._process, self._tick, step, count, phase, patient, left=self._decided.is_set())

    # The thread that talks to the store, which may block it.

    def _talk(self) -> None:
        assert self._board is not None
        while not self._told.is_set() and not (self._returned.is_set() and not self._decided.is_set()):
            try:
                self._exchange(self._board)
                self._refused = False
                self._answers += 1
            except (OSError, RuntimeError) as error:  # PyTorch's errors are RuntimeErrors
                logger.debug("no answer from the store", exc_info=True)
                self._board.disconnect()
                self._refused = isinstance(error, ConnectionRefusedError)
                if self._left.is_set():
                    return
                if self._refused and self._found is not None:
                    # There is nobody to agree with, and nobody to tell.
                    self._decide(self._found)
                    self._told.set()
            self._news.set()
            quickly = self._decided.is_set() or not self._begun.is_set()
            self._wake.wait(min(self._poll, 0.2) if quickly else self._poll)
            self._wake.clear()

    def _exchange(self, board: Board) -> None:
        """Posts and reads what there is to post and to read."""
        board.connect()
        verdict = board.agree(self._found)
        if verdict is not None:
            self._decide(verdict)
        now = time.monotonic()
        everyone = len(self._others) == self._world_size
        if everyone and now < self._next_beat and verdict is None:
            return
        self._next_beat = now + self._interval
        self._tick += 1
        board.post(self._beat())
        self._others = board.beats()
        self._heard += 1
        if len(self._others) == self._world_size:
            self._begun.set()
        if verdict is not None and (not board.is_host or all(map(self._knows, range(self._world_size)))):
            self._told.set()

    def _knows(self, rank: int) -> bool:
        """Whether a rank knows the verdict, or will never hear of it."""
        assert self._verdict is not None
        lost = self._verdict.ranks if self._verdict.kind == "lost" else ()
        beat = self._others.get(rank)
        return rank in lost or (beat is not None and (beat.left or beat.process.is_gone()))

    # The thread that judges, which nothing blocks.

    def _guard(self) -> None:
        while not self._decided.is_set() and not self._returned.is_set():
            verdict = self._look()
            # Meanwhile this rank may have come to its end, and others with it.
            if verdict is not None and not self._returned.is_set():
                self._settle(verdict)
                break
            self._news.wait(self._poll)
            self._news.clear()
        verdict = self._verdict
        if verdict is not None and not self._back.wait(0.0 if self._rank in verdict.ranks else GRACE):
            self._end(verdict.status)
        if not self._left.wait(LEAVING):
            logger.error("could not leave the process group within %g s", LEAVING)
            self._end(verdict.status if verdict else 75)

    def _look(self) -> Verdict | None:
        """What is to be said of the ranks now."""
        now, mine = time.monotonic(), self._beat()
        if self._board is None:
            return self._judge.observe(now, {self._rank: mine})
        heard, answers = self._heard, self._answers
        others = self._others
        if (gone := self._judge.gone(others)) is not None:
            return gone
        judged, answered = self._judged
        self._judged = heard, answers
        if answers > answered:
            self._judge.answered(now)
        else:
            silent = self._judge.unanswered(now, self._board.describe(others.get(0)), refused=self._refused)
            if silent is not None and not (self._board.hosted_by_launcher and self._stopping()):
                # There is no way to agree with the others.
                self._told.set()
                return self._decide(silent)
        return self._judge.observe(now, others | {self._rank: mine}) if heard > judged else None

    def _settle(self, verdict: Verdict) -> Verdict:
        """Makes `verdict` that of all ranks, unless they have one already, which is returned."""
        if self._board is not None and not self._decided.is_set():
            self._found = verdict
            self._wake.set()
            self._decided.wait(LINGER)
        return self._decide(verdict)

    def _decide(self, verdict: Verdict) -> Verdict:
        with self._deciding:
            if self._verdict is None:
                self._verdict = verdict
                self._decided.set()
                self._begun.set()
                self._news.set()
                if self._board is None:
                    self._told.set()
                if not (self._back.is_set() and self._rank in verdict.ranks):
                    # At once: torchrun may end this process before the error that names the rank is printed.
                    logger.error("%s", verdict.message)
            return self._verdict

    def _end(self, status: int) -> None:
        """Ends this process, whose main thread is blocked."""
        # What follows may wait for locks that the main thread holds.
        last = threading.Timer(LAST_RESORT, os._exit, (status,))
        last.daemon = True
        last.start()
        mine = self._beat()
        logger.critical("%s is blocked, %s, and is ended; the stacks of its threads:", mine.name, mine.where)
        faulthandler.dump_traceback(2)
        self._told.wait(LINGER)
        children = multiprocessing.active_children()
        for child in children:
            child.terminate()
        for child in children:
            child.join(1.0)
            child.kill()
        logging.shutdown()
        os._exit(status)


def _is_of_communication(error: BaseException | None) -> bool:
    """Whether communication between ranks failed, which is the consequence of what happened to another rank."""
    while error is not None:
        of_files = isinstance(error, OSError | ValueError | BadInput)
        if isinstance(error, dist.DistError) or any(name in str(error) for name in ("gloo/", "NCCL") if not of_files):
            return True
        error = error.__cause__ or error.__context__
    return False
