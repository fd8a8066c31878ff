"""Objects that go from one process to another in shared memory."""

from __future__ import annotations

import errno
import gc
import os
import resource
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from reserve.batch.movable import Movable
from reserve.data.shared_message import ALIGNMENT, Closed, receive, send


@dataclass
class Pair(Movable):
    first: torch.Tensor
    second: torch.Tensor


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


TENSORS = {
    "float32": torch.arange(6.0).view(2, 3),
    "bfloat16": torch.arange(5).bfloat16(),
    "bool": torch.tensor([True, False]),
    "number": torch.tensor(3.5, dtype=torch.float64),
    "empty": torch.empty(0, 4, dtype=torch.int32),
    "transposed": torch.arange(6).view(2, 3).T,
    "part of a storage": torch.arange(10)[4:7],
    "gradient": torch.ones(2, requires_grad=True),
    "sparse": torch.eye(3).to_sparse(),
    "expanded": torch.ones(3).expand(4, 3),
    "empty with a stride of 0": torch.from_numpy(np.zeros(0, np.int64)),
    "a column of one row": torch.arange(5)[None, :][:, 1],
    "conjugate": torch.tensor([1 + 2j]).conj(),
    "negative": torch.tensor([1 + 2j]).conj().imag,
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_arrive_as_they_are(ends, name):
    send(ends[0], TENSORS[name])
    found = receive(ends[1])
    torch.testing.assert_close(found, TENSORS[name], rtol=0, atol=0)
    assert found.requires_grad == TENSORS[name].requires_grad


def test_objects_arrive_as_they_are(ends):
    value = {"pair": Pair(torch.ones(3), torch.zeros(2, 2)), "array": np.arange(7), "bytes": b"abc", "none": [None]}
    send(ends[0], value)
    found = receive(ends[1])
    assert (found["bytes"], found["none"]) == (b"abc", [None])
    np.testing.assert_array_equal(found["array"], value["array"])
    assert torch.equal(found["pair"].first, torch.ones(3))
    assert torch.equal(found["pair"].second, torch.zeros(2, 2))


def test_a_tensor_that_is_sent_twice_is_one_tensor(ends):
    tensor = torch.ones(3)
    send(ends[0], [tensor, tensor])
    first, second = receive(ends[1])
    assert first is second


def test_tensors_are_aligned(ends):
    send(ends[0], [torch.ones(size, dtype=torch.uint8) for size in (1, 63, 64, 65)])
    assert [tensor.data_ptr() % ALIGNMENT for tensor in receive(ends[1])] == [0] * 4


def test_what_arrives_can_be_written_and_outlives_its_message(ends):
    send(ends[0], [torch.arange(100_000), np.arange(100_000)])
    tensor, array = receive(ends[1])
    gc.collect()
    tensor += 1
    array += 1
    assert torch.equal(tensor, torch.arange(1, 100_001))
    np.testing.assert_array_equal(array, np.arange(1, 100_001))


def test_the_memory_of_a_message_is_given_back(ends):
    def mapped() -> int:
        with open("/proc/self/maps") as maps:
            return sum("reserve-batch" in line for line in maps)

    before = mapped(), len(os.listdir("/proc/self/fd"))
    send(ends[0], torch.arange(100_000))
    tensor = receive(ends[1])
    assert mapped() == before[0] + 1
    del tensor
    gc.collect()
    assert (mapped(), len(os.listdir("/proc/self/fd"))) == before


def test_sending_does_not_wait_for_the_reader(ends):
    """Nor does it depend on the sender's life."""
    messages = [bytes([number]) * 10_000_000 for number in range(3)]
    for message in messages:
        send(ends[0], message)
    ends[0].close()
    assert [receive(ends[1]) for _ in messages] == messages
    with pytest.raises(Closed):
        receive(ends[1])


def test_too_many_open_files_are_the_error(ends, monkeypatch):
    def fail(_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "memfd_create", fail)
    with pytest.raises(OSError, match="Too many open files"):
        send(ends[0], "text")


def test_systems_without_files_in_memory_use_deleted_ones(ends, monkeypatch, tmp_path):
    def refused(_name: str) -> int:
        raise PermissionError(errno.EACCES, "vm.memfd_noexec is 2")

    monkeypatch.setattr(os, "memfd_create", refused)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    send(ends[0], torch.arange(5))
    assert torch.equal(receive(ends[1]), torch.arange(5))
    assert not list(tmp_path.iterdir())


def test_an_end_that_is_closed_with_messages_unread_is_closed(ends):
    """The system calls that a reset."""
    send(ends[1], "unread")
    ends[0].close()
    with pytest.raises(Closed):
        receive(ends[1])


def test_sending_to_a_closed_end_is_an_error(ends):
    ends[0].close()
    with pytest.raises(ConnectionError):
        send(ends[1], "for nobody")


def test_what_cannot_be_pickled_sends_nothing(ends):
    with pytest.raises(AttributeError, match="pickle"):
        send(ends[0], lambda: None)
    send(ends[0], "next")
    assert receive(ends[1]) == "next"


def test_too_many_open_files_are_named(ends):
    send(ends[0], torch.ones(3))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files") as caught:
            receive(ends[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
