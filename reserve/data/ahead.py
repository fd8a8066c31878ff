"""Work on the next item while one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def work_ahead(
    items: Iterable[Item], work: Callable[[Item], Result], *, threads: int = 1
) -> Generator[Result, None, None]:
    """`work` of each item, in order, done by `threads` threads that are as many items ahead of their user.

    Items are taken by the user's thread. Raises what `items` and `work` raise, after the results before it. Close it:
    that ends the threads.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            for future in _submitted(items, lambda item: pool.submit(work, item)):
                waiting.append(future)
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _submitted(items: Iterable[Item], submit: Callable[[Item], Future[Result]]) -> Iterator[Future[Result]]:
    """The future of each item; an error of `items` is a future too, in its place."""
    try:
        for item in items:
            yield submit(item)
    except Exception as error:
        failed: Future[Result] = Future()
        failed.set_exception(error)
        yield failed
