from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reserve.train import beats
from reserve.train.beats import Beat, Process

linux = pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="needs /proc")


def test_a_beat_travels_as_text():
    beat = Beat(3, Process.this(), 5, 7, 2, "computing", patient=True, left=True)
    assert Beat.from_text(beat.to_text()) == beat


@linux
def test_a_process_is_gone_once_it_has_ended():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = replace(Process.this(), pid=child.pid, started=beats._started(child.pid))
        assert not process.is_gone()
        child.kill()
        # It stays in the list of processes until someone asks for its status.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process.is_gone()
    assert process.is_gone()


@linux
def test_another_process_may_have_taken_its_id():
    assert not Process.this().is_gone()
    assert replace(Process.this(), started=Process.this().started - 1).is_gone()


def test_a_process_of_another_machine_cannot_be_seen():
    assert not replace(Process.this(), machine="another boot", started=1).is_gone()


def test_without_proc_no_process_is_gone(monkeypatch, tmp_path):
    monkeypatch.setattr(beats, "_PROC", tmp_path)
    process = Process.this()
    assert (process.machine, process.started) == ("", 0)
    assert not process.is_gone()
