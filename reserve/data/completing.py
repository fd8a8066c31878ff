"""Batches from loading processes, completed in a thread ahead of their user."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from typing import Any

import torch

from reserve.data.loading_processes import InThisProcess, LoadingProcesses


def in_order(
    processes: LoadingProcesses | InThisProcess,
    keys: Iterable[Any],
    *,
    depth: int,
    complete: Callable[[Any], Any] | None = None,
    pins: bool = False,
) -> Generator[Any, None, None]:
    """What `processes` load for each of `keys`, at most `depth` of which are requested, loaded or completed ahead.

    `complete`, if given, is applied to each in a thread, which is prepared for pinning memory if it `pins`. Raises what
    loading and completing raise, after the batches before. Close it: that ends the thread.
    """
    left, ahead = iter(keys), deque[Future[Any]]()
    for key in islice(left, depth):
        processes.request(key)
    with ExitStack() as stack:
        pool = None
        if complete is not None:
            pool = stack.enter_context(ThreadPoolExecutor(max_workers=1, initializer=_pinning_on() if pins else None))
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        failed = False  # Nothing is to be had after that.
        while ahead or (processes.pending and not failed):
            # Batches that are there are completed ahead; only the next one is waited for.
            while processes.pending and not failed and (not ahead or (pool is not None and processes.ready())):
                ahead.append(_received(processes, pool, complete))
                failed = ahead[-1].done() and ahead[-1].exception() is not None
            batch = ahead.popleft().result()
            for key in islice(left, 1):
                processes.request(key)
            yield batch


def _received(
    processes: LoadingProcesses | InThisProcess,
    pool: ThreadPoolExecutor | None,
    complete: Callable[[Any], Any] | None,
) -> Future[Any]:
    """The next batch, or the error that loading it raised, which must not overtake the batches before it."""
    done = Future[Any]()
    try:
        batch = processes.receive()
    except Exception as error:
        done.set_exception(error)
        return done
    if pool is not None and complete is not None:
        return pool.submit(complete, batch)
    done.set_result(batch)
    return done


def _pinning_on() -> Callable[[], None] | None:
    """Prepares a thread for pinning memory; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    device = torch.cuda.current_device()

    def start() -> None:
        # The current device is that of a thread; pinning memory for another would start a context there.
        torch.cuda.set_device(device)
        # The copy needs no more cores than one.
        torch.set_num_threads(1)

    return start
