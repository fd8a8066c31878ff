"""The job script of docs/training.md, run with stand-ins for Slurm's commands and for `reserve`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
SRUN = """#!{python}
# Starts SLURM_NTASKS processes, passes SIGUSR1 on to them, and exits with the highest status.
import os, signal, subprocess, sys
arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
tasks = []
for task in range(int(os.environ["SLURM_NTASKS"])):
    ids = {{"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)}}
    tasks.append(subprocess.Popen(arguments, env=os.environ | ids))
signal.signal(signal.SIGUSR1, lambda *_: [task.send_signal(signal.SIGUSR1) for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""
RESERVE = """#!{python}
# Notes how it was started, waits for SIGUSR1 if it is to be stopped, and exits with STATUS.
import os, pathlib, signal, sys
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
stopped = []
signal.signal(signal.SIGUSR1, lambda *_: stopped.append(1))
note = pathlib.Path("rank" + os.environ["RANK"])
note.with_suffix(".part").write_text(" ".join([*(os.environ[name] for name in names), *sys.argv[1:]]))
note.with_suffix(".part").rename(note)
while os.environ["WAITS"] and not stopped:
    signal.sigtimedwait([], 0.01)
sys.exit(int(os.environ["STATUS"]))
"""
SCONTROL = """#!/bin/sh
case $1 in
  show) echo node1; echo node2 ;;
  requeue) echo "$2" > requeued ;;
esac
"""


@pytest.fixture
def job(tmp_path) -> Path:
    """A folder with the script and the stand-ins."""
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (tmp_path / "job.sh").write_text(script)
    for name, text in {"srun": SRUN, "reserve": RESERVE, "scontrol": SCONTROL}.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(python=sys.executable) if name != "scontrol" else text)
        path.chmod(0o755)
    return tmp_path


def start(job: Path, status: int, *, waits: bool = False, restarts: int = 0) -> subprocess.Popen[bytes]:
    environment = {
        "PATH": f"{job / 'bin'}:{os.environ['PATH']}",
        "SLURM_NTASKS": "2",
        "SLURM_JOB_ID": "30017",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_RESTART_COUNT": str(restarts),
        "STATUS": str(status),
        "WAITS": "yes" if waits else "",
    }
    return subprocess.Popen(["bash", "job.sh"], cwd=job, env=environment, start_new_session=True)


def test_every_rank_knows_its_place_and_the_others(job):
    assert start(job, 0).wait(600) == 0
    for rank in range(2):
        started = (job / f"rank{rank}").read_text().split()
        assert started[:5] == [str(rank), str(rank), "2", "node1", "30017"]
        assert started[5] == "pretrain"
        assert "--auto_resume" in started
    assert not (job / "requeued").exists()


def test_a_job_that_was_warned_is_queued_again(job):
    process = start(job, 75, waits=True)
    try:
        while not all((job / f"rank{rank}").exists() for rank in range(2)):
            assert process.poll() is None
            signal.sigtimedwait([], 0.01)
        # Slurm signals the steps of a job, not its script.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in map(int, children):
            os.kill(child, signal.SIGUSR1)
        process.wait(600)
    finally:
        process.kill()
    assert (job / "requeued").read_text().strip() == "30017"


@pytest.mark.parametrize("status", [1, 2])
def test_a_job_that_failed_with_a_reason_is_not_queued_again(job, status):
    assert start(job, status).wait(600) == status
    assert not (job / "requeued").exists()


def test_a_killed_job_is_queued_again_but_not_for_ever(job):
    start(job, 137).wait(600)
    assert (job / "requeued").exists()
    (job / "requeued").unlink()
    start(job, 137, restarts=100).wait(600)
    assert not (job / "requeued").exists()


def test_it_leaves_more_time_than_a_run_takes_to_stop():
    from reserve.config import TrainConfig

    (seconds,) = re.findall(r"--signal=USR1@(\d+)", PAGE.read_text("utf-8"))
    assert int(seconds) > TrainConfig().stop_timeout
