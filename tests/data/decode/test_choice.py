"""The choice of a decoder, and the table that explains it."""

from __future__ import annotations

import sys

import pytest

from reserve.data import decode
from reserve.data.decode import MediaInfo, VideoTrack, candidates, choose_decoder, choose_file_decoder, decoder_table
from reserve.data.decode.dali import DaliDecoder
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.decode.torchcodec import TorchCodecDecoder
from tests.helpers.batch_decoder import PyAVInBatches


class Absent(PyAVDecoder):
    name = "absent"

    def unavailable(self):
        return "it needs a part that this machine lacks"


@pytest.fixture
def table(monkeypatch):
    """Three decoders: one that cannot run, one that takes batches, PyAV."""
    decoders = (Absent(), PyAVInBatches(batch_size=8), PyAVDecoder())
    monkeypatch.setattr(decode, "DECODERS", decoders)
    return decoders


def test_auto_is_the_first_that_can_run(table):
    assert choose_decoder() is table[1]
    assert choose_file_decoder() is table[2]


def test_by_name(table):
    assert choose_decoder("pyav") is table[2]


def test_unknown_name(table):
    names = "'absent', 'pyav-in-batches', 'pyav'"
    with pytest.raises(ValueError, match=f"decoder must be 'auto' or one of {names}; got 'x'"):
        choose_decoder("x")


def test_named_one_that_cannot_run_gives_its_reason(table):
    with pytest.raises(RuntimeError, match="decoder 'absent' cannot run: it needs a part that this machine lacks"):
        choose_decoder("absent")


def test_none_that_can_run_gives_every_reason(monkeypatch):
    monkeypatch.setattr(decode, "DECODERS", (Absent(), Absent()))
    for choose in (choose_decoder, choose_file_decoder):
        with pytest.raises(RuntimeError, match=r"^(decoder 'absent' cannot run: [^;]*(; |$)){2}"):
            choose()


def test_table(table):
    assert decoder_table().splitlines() == [
        "decoder          decodes             status",
        "absent           file by file        it needs a part that this machine lacks",
        "pyav-in-batches  batches of 8 files  picked",
        "pyav             file by file        available",
    ]


def test_pyav_can_run():
    assert choose_decoder("pyav").unavailable() is None
    can = (decoder for decoder in decode.DECODERS if decoder.unavailable() is None and decoder.slow_here() is None)
    assert choose_decoder() is next(can)


def test_pyav_names_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RuntimeError, match=r"decoder 'pyav' cannot run: .*pip install 'merlot-reserve\[video\]'"):
        choose_decoder("pyav")


class Slow(PyAVInBatches):
    name = "slow"

    def slow_here(self):
        return "it is slower without its hardware"


class Picky(PyAVDecoder):
    name = "picky"

    def unsuited(self, info):
        return None if info.video.codec == "h264" else f"{info.video.codec} is not for it"


def info(codec):
    return MediaInfo(VideoTrack(True, 64, 48, codec, "", "yuv420p"), (), ())


def test_auto_passes_over_what_is_slower_here(monkeypatch):
    monkeypatch.setattr(decode, "DECODERS", (Slow(), Absent(), PyAVDecoder()))
    found = candidates()
    assert [decoder.name for decoder in found.decoders] == ["pyav"]
    assert list(map(str, found.passed_over)) == [
        "slow: it is slower without its hardware",
        "absent: it needs a part that this machine lacks",
    ]
    assert "available by name; it is slower without its hardware" in decoder_table()


def test_slow_one_can_be_named_and_files_fall_back_from_it(monkeypatch):
    monkeypatch.setattr(decode, "DECODERS", (Slow(), Picky(), PyAVDecoder()))
    found = candidates("slow")
    assert [decoder.name for decoder in found.decoders] == ["slow", "picky", "pyav"]
    assert [decoder.name for decoder in found.files] == ["picky", "pyav"]
    assert [decoder.name for decoder in candidates("pyav").decoders] == ["pyav", "picky"]


def test_choice_by_file_gives_the_reasons(monkeypatch):
    monkeypatch.setattr(decode, "DECODERS", (Picky(), PyAVDecoder()))
    found = candidates()
    assert str(found.choose(info("h264"))) == "picky"
    assert str(found.choose(info("vp9"))) == "pyav (picky: vp9 is not for it)"


def test_spans_are_not_read_by_what_reads_the_whole_file(monkeypatch):
    class Ahead(PyAVDecoder):
        name = "ahead"
        reads_ahead = True

    monkeypatch.setattr(decode, "DECODERS", (Ahead(), PyAVDecoder()))
    assert choose_file_decoder().name == "ahead"
    assert choose_file_decoder(for_spans=True).name == "pyav"


def test_a_file_that_another_only_decodes_faster_goes_to_the_one_that_is_named(monkeypatch):
    monkeypatch.setattr(TorchCodecDecoder, "unavailable", lambda self: None)
    monkeypatch.setattr(decode, "DECODERS", (TorchCodecDecoder(), PyAVDecoder()))
    assert str(candidates().choose(info("h264"))) == "pyav (torchcodec: PyAV decodes H.264 faster)"
    assert str(candidates().choose(info("vp9"))) == "torchcodec"
    for codec in ("h264", "vp9"):
        assert str(candidates("torchcodec").choose(info(codec))) == "torchcodec"
    assert [decoder.name for decoder in candidates("torchcodec").decoders] == ["torchcodec", "pyav"]


def test_auto_leaves_dali_to_those_who_name_it(monkeypatch):
    """Without a question to the GPU, which would cost each process a CUDA context."""
    monkeypatch.setattr(DaliDecoder, "devices", None)
    monkeypatch.setattr(DaliDecoder, "unavailable", lambda self: None)
    monkeypatch.setattr(decode, "DECODERS", (DaliDecoder(), PyAVDecoder()))
    found = candidates()
    assert [decoder.name for decoder in found.decoders] == ["pyav"]
    assert list(map(str, found.passed_over)) == [
        "dali: it is slower than the others on a CPU, and not measured on a GPU"
    ]
