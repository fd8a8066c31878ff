"""What the probe makes of the driver's answers, with libraries of our own in its place."""

from __future__ import annotations

import ctypes
import re

import pytest

from reserve.data.decode.dali import nvdec
from reserve.data.decode.dali.nvdec import CHROMA, CODECS, Caps, VideoHardware, ask


class Cuda:
    """libcuda whose function `fails` fails; records how contexts are used."""

    def __init__(self, fails=""):
        self.fails, self.calls = fails, []

    def __getattr__(self, name):
        def call(*_):
            self.calls.append(name)
            return 1 if name == self.fails else 0

        return call


class Nvcuvid:
    """libnvcuvid of a GPU that decodes 8-bit 4:2:0 H.264 and 10-bit HEVC."""

    def cuvidGetDecoderCaps(self, pointer):  # the library's name
        caps = pointer._obj
        known = {(CODECS["h264"], CHROMA["4:2:0"], 0), (CODECS["hevc"], CHROMA["4:2:0"], 2)}
        if caps.codec == CODECS["av1"]:
            return 801  # an error, not a no
        caps.is_supported = (caps.codec, caps.chroma, caps.depth_minus_8) in known
        caps.max_width, caps.max_height, caps.max_macroblocks = 4096, 4096, 65536
        caps.min_width, caps.min_height, caps.decoders = 48, 16, 7
        return 0


def test_layout_of_the_structure():
    """As in cuviddec.h: a driver writes into it."""
    assert ctypes.sizeof(Caps) == 88
    assert {
        name: getattr(Caps, name).offset for name in ("is_supported", "max_width", "min_width", "histogram_bins")
    } == {
        "is_supported": 24,
        "max_width": 28,
        "min_width": 40,
        "histogram_bins": 46,
    }


def test_formats():
    cuda = Cuda()
    hardware = ask(cuda, Nvcuvid())
    assert set(hardware.formats) == {("h264", "4:2:0", 8), ("hevc", "4:2:0", 10)}
    assert hardware.formats["h264", "4:2:0", 8].decoders == 7
    assert hardware.refuses("h264", 1920, 1080) is None
    assert cuda.calls[-2:] == ["cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2"]


@pytest.mark.parametrize(
    ("codec", "size", "reason"),
    [
        ("av1", (640, 360), "this GPU has no decoder for av1 in 4:2:0 with 8 bits"),
        ("hevc", (640, 360), "this GPU has no decoder for hevc in 4:2:0 with 8 bits"),
        ("h264", (32, 360), "this GPU decodes h264 from 48x16 to 4096x4096 pixels, not 32x360"),
        ("h264", (8192, 360), "not 8192x360"),
    ],
)
def test_reasons(codec, size, reason):
    assert reason in ask(Cuda(), Nvcuvid()).refuses(codec, *size)


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        ("cuInit", "no CUDA device"),
        ("cuDeviceGet", "no CUDA device"),
        ("cuDevicePrimaryCtxRetain", "the CUDA device cannot be used"),
        ("cuCtxPushCurrent_v2", "the CUDA device cannot be used"),
    ],
)
def test_device_that_fails(fails, reason):
    hardware = ask(Cuda(fails), Nvcuvid())
    assert hardware.refuses("h264", 640, 360) == hardware.reason == reason


@pytest.mark.parametrize("absent", ["libcuda.so.1", "libnvcuvid.so.1"])
def test_library_that_is_absent(monkeypatch, absent):
    def load(name):
        if name == absent:
            raise OSError(name)
        return Cuda() if "cuda" in name else Nvcuvid()

    monkeypatch.setattr(nvdec.ctypes, "CDLL", load)
    reason = VideoHardware.of_this_machine().refuses("h264", 640, 360)
    assert re.fullmatch(rf"{absent} of the NVIDIA driver is not here", reason)


@pytest.mark.gpu
def test_this_machine():
    hardware = VideoHardware.of_this_machine()
    assert hardware.formats or hardware.reason


def test_a_driver_without_the_question(monkeypatch):
    monkeypatch.setattr("reserve.data.decode.dali.nvdec.ctypes.CDLL", lambda name: object())
    assert VideoHardware.of_this_machine().refuses("h264", 640, 360).startswith("the NVIDIA driver is too old: ")
