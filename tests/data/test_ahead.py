"""Work on the next item while one is used: order, errors and the end of the thread."""

from __future__ import annotations

import threading

import pytest

from reserve.data.ahead import work_ahead


def test_results_come_in_order():
    assert list(work_ahead(range(7), lambda item: item * item)) == [item * item for item in range(7)]


def test_it_works_on_the_next_item_while_one_is_used():
    begun = {item: threading.Event() for item in range(3)}
    results = work_ahead(range(3), lambda item: begun[item].set())
    next(results)
    assert begun[1].wait(30)
    assert not begun[2].is_set()
    results.close()


def test_items_are_taken_by_the_users_thread():
    threads = []

    def items():
        for item in range(3):
            threads.append(threading.current_thread())
            yield item

    worked_by = list(work_ahead(items(), lambda _: threading.current_thread()))
    assert set(threads) == {threading.current_thread()}
    assert threading.current_thread() not in worked_by


@pytest.mark.parametrize("source", ["items", "work"])
def test_errors_come_after_the_results_before_them(source):
    def items():
        yield from (1, 2)
        if source == "items":
            raise KeyError("third")
        yield 3

    def work(item):
        if item == 3:
            raise KeyError("third")
        return item

    results = work_ahead(items(), work)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(KeyError, match="third"):
        next(results)


@pytest.mark.parametrize("used", [0, 1, 2])
def test_closing_ends_the_thread(used):
    before = set(threading.enumerate())
    results = work_ahead(range(100), lambda item: item)
    for _ in range(used):
        next(results)
    results.close()
    assert set(threading.enumerate()) == before
