"""Why torchcodec cannot be imported, in one line."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from reserve.data.decode.torchcodec import TorchCodecDecoder, library
from reserve.data.decode.torchcodec.library import Refused, refusals

NO_FFMPEG = "Could not load libtorchcodec. Likely causes:\n" + "\n".join(
    f"OSError: libavutil.so.{number}: cannot open shared object file: No such file or directory" for number in (60, 59)
)
OTHER_TORCH = NO_FFMPEG + "\nOSError: libtorchcodec_core8.so: undefined symbol: torch_list_size"


@pytest.fixture(autouse=True)
def _fresh():
    library._import_failure.cache_clear()
    yield
    library._import_failure.cache_clear()


def test_absent(monkeypatch):
    def absent(_):
        raise PackageNotFoundError

    monkeypatch.setattr(library, "version", absent)
    assert TorchCodecDecoder().unavailable() == "it needs torchcodec: pip install 'merlot-reserve[torchcodec]'"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (NO_FFMPEG, "torchcodec finds none of FFmpeg's libraries (versions 4 to 8): install FFmpeg, or "),
        (OTHER_TORCH, "torchcodec 1.2 cannot load: install the release that is made for torch "),
        ("no such thing\nand more", "torchcodec 1.2 cannot be imported: no such thing"),
    ],
)
def test_reason_is_one_line(text, reason):
    found = library._explained(text, "1.2")
    assert found.startswith(reason)
    assert "\n" not in found


def test_not_imported_with_the_package():
    check = "import sys, reserve.data.decode; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_refusal_leaves_out_the_place_in_the_sources():
    with pytest.raises(Refused) as caught, refusals("it cannot decode"):
        raise RuntimeError("decode, /a/b/Decoder.cpp:932, frame pts is 17\nmore")
    assert str(caught.value) == "it cannot decode: frame pts is 17"


def test_without_pyav_it_cannot_open_files(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'merlot-reserve[video]'" in str(TorchCodecDecoder().unavailable())
