"""`reserve backends`, without and with videos."""

from __future__ import annotations

from reserve.cli.app import main
from reserve.data import decode
from reserve.data.decode.pyav import PyAVDecoder
from tests.helpers.media_files import write_media


class ForHEVC(PyAVDecoder):
    name = "for-hevc"

    def unsuited(self, info):
        return None if info.video.codec == "hevc" else f"{info.video.codec} is not for it"


def test_table_of_the_machine(capsys):
    assert main(["backends"]) == 0
    out = capsys.readouterr().out
    assert {"pyav", "torchcodec", "dali", "rotary_attention"} <= {line.split()[0] for line in out.splitlines() if line}


def test_files(tmp_path, capsys):
    write_media(tmp_path / "good.mp4", frame_times=[0, 0.1, 0.2])
    assert main(["backends", str(tmp_path)]) == 0
    assert "h264   64x48  yuv420p" in capsys.readouterr().out
    (tmp_path / "bad.mp4").write_bytes(b"x")
    assert main(["backends", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "    error: not a media file" in out
    assert "h264" in out


def test_files_by_a_named_decoder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(decode, "DECODERS", (ForHEVC(), PyAVDecoder()))
    write_media(tmp_path / "good.mp4", frame_times=[0, 0.1, 0.2])
    assert main(["backends", str(tmp_path), "--decoder=for-hevc"]) == 0
    out = capsys.readouterr().out
    assert "yuv420p  pyav" in out
    assert "    pictures not by for-hevc: h264 is not for it" in out


def test_decoder_needs_files_and_a_name_that_is_known(tmp_path, capsys):
    assert main(["backends", "--decoder=pyav"]) == 2
    assert "--decoder needs a VIDEO" in capsys.readouterr().err
    assert main(["backends", str(tmp_path), "--decoder=x"]) == 1
    assert "decoder must be 'auto' or one of 'dali', 'torchcodec', 'pyav'; got 'x'" in capsys.readouterr().err


def test_absent_file(tmp_path, capsys):
    assert main(["backends", str(tmp_path / "absent.mp4")]) == 1
    assert "no such file or folder" in capsys.readouterr().err
