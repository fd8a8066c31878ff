"""`reserve backends`, without and with videos."""

from __future__ import annotations

from reserve.cli.app import main
from tests.helpers.media_files import write_media


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


def test_absent_file(tmp_path, capsys):
    assert main(["backends", str(tmp_path / "absent.mp4")]) == 1
    assert "no such file or folder" in capsys.readouterr().err
