"""Python objects that processes of one machine send each other in shared memory.

An object is written to an anonymous file; only its descriptor goes through the socket. So sending never waits for the
reader, a message arrives whole or not at all whenever its sender is killed, and it stays readable after that.
"""

from __future__ import annotations

import errno
import io
import math
import mmap
import os
import pickle
import socket
import struct
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import torch

ALIGNMENT = 64
"""Bytes; each part of a message starts at a multiple, as torch's own allocations do."""


class Closed(Exception):
    """The other end of a connection is closed, as it is when its process has died."""


def send(connection: socket.socket, value: Any) -> None:
    """Sends a picklable `value`. Its tensors on the CPU and its arrays are copied once, into the shared memory.

    Raises ConnectionError where the other end is closed, and what pickling raises.
    """
    stream, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
    parts = [stream.getbuffer(), *(buffer.raw() for buffer in buffers)]
    descriptor = _anonymous_file()
    try:
        sizes = [part.nbytes for part in parts]
        _write(descriptor, 0, struct.pack(f"={1 + len(sizes)}Q", len(sizes), *sizes))
        places = list(_places(sizes))
        for part, (start, _) in zip(parts, places, strict=True):
            _write(descriptor, start, part)
        socket.send_fds(connection, [b"m"], [descriptor])
    finally:
        os.close(descriptor)


def receive(connection: socket.socket) -> Any:
    """The next object. Its tensors and arrays are views of the message, copied on write; they keep it in memory.

    Raises Closed after the last message of a closed connection, and OSError where no file can be opened.
    """
    try:
        content, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    except ConnectionError as error:
        raise Closed from error
    if not content:
        raise Closed
    if not descriptors:
        # The system drops a descriptor that the process has no room for.
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    try:
        mapped = mmap.mmap(descriptors[0], 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(descriptors[0])
    (count,) = struct.unpack_from("=Q", mapped)
    sizes = struct.unpack_from(f"={count}Q", mapped, 8)
    view = memoryview(mapped)
    stream, *buffers = [view[start:end] for start, end in _places(sizes)]
    return pickle.loads(stream, buffers=buffers)


class _Pickler(pickle.Pickler):
    """Pickles plain tensors on the CPU as buffers out of band, as numpy does its arrays."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not torch.Tensor or value.device.type != "cpu" or value.layout != torch.strided:
            return NotImplemented
        if value.requires_grad or value.is_quantized or value.is_nested or value.is_conj() or value.is_neg():
            return NotImplemented
        # Not reshaped: a tensor of at most one element keeps whatever strides it has, which no view as bytes allows.
        flat = value.contiguous().as_strided((value.numel(),), (1,))
        content = flat.view(torch.uint8).numpy()
        return _tensor, (pickle.PickleBuffer(content.data), value.dtype, tuple(value.shape))


def _tensor(content: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    if not math.prod(shape):
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(content, dtype=dtype).view(shape)


def _places(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Start and end of each part, after the number of parts and their sizes, 8 bytes each."""
    end = 8 * (1 + len(sizes))
    for size in sizes:
        start = -(-end // ALIGNMENT) * ALIGNMENT
        end = start + size
        yield start, end


def _anonymous_file() -> int:
    """The descriptor of a file in memory where the system allows that, else of a deleted temporary file.

    Unlike files in /dev/shm, those in memory know no limit but the memory itself.
    """
    try:
        return os.memfd_create("reserve-batch")
    except (AttributeError, OSError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in (errno.ENOSYS, errno.EPERM, errno.EACCES):
            raise  # as with too many open files
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


def _write(descriptor: int, place: int, content: bytes | memoryview) -> None:
    left = memoryview(content)
    while left.nbytes:
        written = os.pwrite(descriptor, left, place)
        left, place = left[written:], place + written
