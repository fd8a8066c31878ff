"""What ends long runs, one case each: what is done to a run, and what it must do then."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from reserve.errors import RESUMABLE
from reserve.model.run_checkpoints import list_checkpoints
from reserve.train.metrics import read_metrics
from tests.train.fall_backs import CannotRun, Case, Found, Process, Runs, wait_for_step, wait_until

RANK_TIMEOUT, HANG_TIMEOUT, STOP_TIMEOUT = 5.0, 10.0, 4.0
"""Seconds; far below the defaults, so that a case takes less than a minute."""
WATCHED = (f"--train.rank_timeout={RANK_TIMEOUT:g}", f"--train.hang_timeout={HANG_TIMEOUT:g}")
SLACK = 30.0
"""Seconds beyond a stated time that a loaded machine may take."""


def stopped_by(number: signal.Signals, *, group: bool) -> Callable[[Runs, Path], Found]:
    def do(runs: Runs, run: Path) -> Found:
        process = runs.start(run, f"--train.num_workers={int(group)}")
        wait_for_step(run, 3, process)
        start = time.monotonic()
        (os.killpg if group else os.kill)(process.popen.pid, number)
        status = process.wait()
        seconds = time.monotonic() - start
        assert status == RESUMABLE, process.printed()
        assert list_checkpoints(run)[-1].step == read_metrics(run / "metrics.jsonl")[-1]["step"]
        return Found(status, seconds, process.said("stopped by"), runs.finish(run))

    return do


def stopped_in_preparation(runs: Runs, run: Path) -> Found:
    process = runs.start(run)
    wait_until(lambda: (run / "state.json").exists(), process)
    start = time.monotonic()
    os.kill(process.popen.pid, signal.SIGUSR1)
    status = process.wait()
    seconds = time.monotonic() - start
    assert status == RESUMABLE, process.printed()
    return Found(status, seconds, process.said("stopped by"), runs.finish(run))


def stopped_and_stuck(runs: Runs, run: Path) -> Found:
    """The first rank is inside a collective operation with a rank that is stopped: no Python code runs there."""
    ranks = runs.start_ranks(run, 2, f"--train.stop_timeout={STOP_TIMEOUT:g}", "--train.rank_timeout=600")
    wait_for_step(run, 3, *ranks)
    os.kill(ranks[1].popen.pid, signal.SIGSTOP)
    start = time.monotonic()
    os.kill(ranks[0].popen.pid, signal.SIGTERM)
    status = ranks[0].wait()
    seconds = time.monotonic() - start
    assert status == RESUMABLE, ranks[0].printed()
    assert STOP_TIMEOUT <= seconds < STOP_TIMEOUT + SLACK
    return Found(status, seconds, ranks[0].said("train.stop_timeout"))


def newest_checkpoint_is_corrupt(runs: Runs, run: Path) -> Found:
    runs.finish(run)
    path = list_checkpoints(run)[-1].path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    start = time.monotonic()
    process = runs.start(run, "--auto_resume")
    status = process.wait()
    assert status == 0, process.printed()
    said = process.said("kept as step_.*damaged, and the run resumes from step 11")
    seconds = time.monotonic() - start
    shutil.rmtree(run / "checkpoints" / "step_00000012.damaged")  # which an undisturbed run does not have
    return Found(status, seconds, said, run)


@contextmanager
def small_disk(run: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own for a run's folder."""
    run.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(run)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotRun(f"no file system can be mounted here ({error})") from error
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(run)], check=True)


def full_disk_with_room_again(runs: Runs, run: Path) -> Found:
    with small_disk(run, 200):
        process = runs.start(run, "--train.max_failed_saves=1000")
        wait_for_step(run, 3, process)
        filler = run / "filler"
        _fill(filler)
        start = time.monotonic()
        wait_until(lambda: "could not be saved" in process.printed(), process)
        filler.unlink()
        status = process.wait()
        seconds = time.monotonic() - start
        assert status == 0, process.printed()
        failed = read_metrics(run / "metrics.jsonl")[-1]["failed_saves"]
        said = f"{process.said('could not be saved')} [failed_saves: {failed:.0f}]"
        finished = shutil.copytree(run, runs.folder / f"{run.name}-copy")
    return Found(status, seconds, said, finished)


def full_disk_for_good(runs: Runs, run: Path) -> Found:
    with small_disk(run, 200):
        process = runs.start(run, "--train.max_failed_saves=2")
        wait_for_step(run, 3, process)
        filler = run / "filler"
        _fill(filler)
        start = time.monotonic()
        status = process.wait()
        seconds = time.monotonic() - start
        assert status == 1, process.printed()
        said = process.said(r"^reserve: .*No space left")
        filler.unlink()
        runs.finish(run)
        finished = shutil.copytree(run, runs.folder / f"{run.name}-copy")
    return Found(status, seconds, said, finished)


def _fill(filler: Path) -> None:
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
    except OSError:
        pass


@contextmanager
def read_only(run: Path) -> Iterator[None]:
    """The run's folder is mounted over itself, read-only: files that are open stay open, as on a real disk."""
    try:
        subprocess.run(["mount", "--bind", str(run), str(run)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotRun(f"no folder can be mounted here ({error})") from error
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(run)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(run)], check=True)


def read_only_in_between(runs: Runs, run: Path) -> Found:
    process = runs.start(run, "--train.max_failed_saves=1000")
    wait_for_step(run, 3, process)
    with read_only(run):
        start = time.monotonic()
        wait_until(lambda: "could not be saved" in process.printed(), process)
    status = process.wait()
    seconds = time.monotonic() - start
    assert status == 0, process.printed()
    return Found(status, seconds, process.said("could not be saved"), run)


def read_only_from_the_start(runs: Runs, run: Path) -> Found:
    run.mkdir()
    with read_only(run):
        start = time.monotonic()
        process = runs.start(run)
        status = process.wait()
        seconds = time.monotonic() - start
    assert status == 1, process.printed()
    return Found(status, seconds, process.said("nothing can be written into the run's folder"))


def second_run_in_the_folder(runs: Runs, run: Path) -> Found:
    first = runs.start(run)
    wait_until(lambda: (run / "state.json").exists(), first)
    os.kill(first.popen.pid, signal.SIGSTOP)
    start = time.monotonic()
    second = runs.start(run, "--auto_resume")
    status = second.wait()
    seconds = time.monotonic() - start
    assert status == 1, second.printed()
    said = second.said("is in use")
    os.kill(first.popen.pid, signal.SIGCONT)
    assert first.wait() == 0, first.printed()
    return Found(status, seconds, said, run)


def _ends(ranks: list[Process], pattern: str, limit: float) -> Found:
    """The others' statuses and what they said; asserts that each ends in time and names what `pattern` describes."""
    start = time.monotonic()
    statuses = [rank.wait() for rank in ranks]
    seconds = time.monotonic() - start
    assert seconds < limit + SLACK, f"{seconds} s"
    assert all(status == RESUMABLE for status in statuses), (statuses, ranks[0].printed()[-4000:])
    return Found(statuses, seconds, "\n".join(dict.fromkeys(rank.said(pattern) for rank in ranks)))


def rank_is_killed(runs: Runs, run: Path) -> Found:
    ranks = runs.start_ranks(run, 3, "--train.batch_size=3", *WATCHED)
    wait_for_step(run, 3, *ranks)
    ranks[1].popen.kill()
    return _ends([ranks[0], ranks[2]], r"rank 1\b", RANK_TIMEOUT)


def first_rank_is_killed(runs: Runs, run: Path) -> Found:
    ranks = runs.start_ranks(run, 2, *WATCHED)
    wait_for_step(run, 3, *ranks)
    ranks[0].popen.kill()
    return _ends([ranks[1]], r"rank 0\b", RANK_TIMEOUT)


def rank_is_stopped(runs: Runs, run: Path) -> Found:
    ranks = runs.start_ranks(run, 2, *WATCHED)
    wait_for_step(run, 3, *ranks)
    os.kill(ranks[1].popen.pid, signal.SIGSTOP)
    return _ends([ranks[0]], r"rank 1\b", RANK_TIMEOUT)


def loading_process_of_a_rank_hangs(runs: Runs, run: Path) -> Found:
    ranks = runs.start_ranks(run, 2, "--train.num_workers=1", *WATCHED)
    wait_for_step(run, 3, *ranks)
    for loader in loaders_of(ranks[1]):
        os.kill(loader, signal.SIGSTOP)
    return _ends(ranks, r"rank 1\b.*waiting for data", HANG_TIMEOUT)


def loaders_of(process: Process) -> list[int]:
    """The loading processes of a trainer, which are children that Python has spawned."""
    children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def loading_process_is_killed(runs: Runs, run: Path) -> Found:
    process = runs.start(run, "--train.num_workers=2")
    wait_for_step(run, 3, process)
    start = time.monotonic()
    os.kill(loaders_of(process)[0], signal.SIGKILL)
    status = process.wait()
    seconds = time.monotonic() - start
    assert status == 0, process.printed()
    return Found(status, seconds, process.said("a loading process .* died of signal 9"), run)


def loading_processes_die_again_and_again(runs: Runs, run: Path) -> Found:
    process = runs.start(run, "--train.num_workers=1", "--optimizer.num_train_steps=100000")
    wait_for_step(run, 3, process)
    start = time.monotonic()
    while process.popen.poll() is None:
        assert time.monotonic() - start < 600, "it does not end"
        try:
            for loader in loaders_of(process):
                os.kill(loader, signal.SIGKILL)
        except OSError:  # It has just ended.
            pass
        time.sleep(0.01)
    status = process.wait()
    assert status == 1, process.printed()[-2000:]
    return Found(status, time.monotonic() - start, process.said("^reserve: .*loading processes in a row died"))


def losses_become_nan(runs: Runs, run: Path) -> Found:
    start = time.monotonic()
    # Weights so large that activations overflow, but finite themselves.
    settings = ("--optimizer.learning_rate=1e20", "--optimizer.weight_decay_rate=0", "--optimizer.num_train_steps=1000")
    process = runs.start(run, *settings, "--train.max_not_finite=5")
    status = process.wait()
    seconds = time.monotonic() - start
    assert status == 1, process.printed()[-2000:]
    said = process.said("^reserve: the loss or the gradients were not finite")
    assert list((run / "not_finite").glob("step_*.safetensors")), said
    return Found(status, seconds, said)


JUMPS = """
import time
_time, _time_ns = time.time, time.time_ns
_count = 0
def _offset():
    global _count
    _count += 1
    return (0, 86400, -86400, 3600)[_count // 7 % 4]
time.time = lambda: _time() + _offset()
time.time_ns = lambda: _time_ns() + _offset() * 10**9
"""


def clock_jumps(runs: Runs, run: Path) -> Found:
    patch = runs.folder / "jumping"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(JUMPS)
    path = os.pathsep.join([str(patch), str(Path(__file__).parents[2])])
    start = time.monotonic()
    ranks = [runs.start(run, "--train.num_workers=1", *WATCHED, environment={"PYTHONPATH": path})]
    wait_for_step(run, 5, *ranks)
    os.kill(ranks[0].popen.pid, signal.SIGTERM)
    assert ranks[0].wait() == RESUMABLE, ranks[0].printed()
    status = runs.start(run, "--auto_resume", *WATCHED, environment={"PYTHONPATH": path}).wait()
    assert status == 0
    return Found(status, time.monotonic() - start, ranks[0].said("stopped by"), run)


def torchrun_restarts(runs: Runs, run: Path) -> Found:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "--max-restarts=2")
    process = runs.start(run, launcher=launcher)
    wait_for_step(run, 3, process)
    children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children").read_text().split()
    victim = next(int(c) for c in children if b"pretrain" in Path(f"/proc/{c}/cmdline").read_bytes())
    start = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    status = process.wait()
    seconds = time.monotonic() - start
    assert status == 0, process.printed()[-4000:]
    starts = re.findall(r"steps (\d+) to 12", process.printed())
    assert len(starts) == 2, process.printed()[-4000:]
    return Found(status, seconds, f"two starts, from steps {' and '.join(starts)}", run)


CASES: dict[str, Case] = {
    "sigterm": Case("SIGTERM", "saves and ends", stopped_by(signal.SIGTERM, group=False)),
    "sigint": Case("Ctrl-C, at the loading process too", "saves and ends", stopped_by(signal.SIGINT, group=True)),
    "sigusr1": Case(
        "SIGUSR1, Slurm's warning, at the loading process too", "saves and ends", stopped_by(signal.SIGUSR1, group=True)
    ),
    "sigusr1-preparing": Case("SIGUSR1 before the first step", "ends at once", stopped_in_preparation),
    "stop-timeout": Case(
        f"SIGTERM while another rank is stopped, train.stop_timeout {STOP_TIMEOUT:g}",
        "ends without another checkpoint",
        stopped_and_stuck,
    ),
    "corrupt-checkpoint": Case(
        "a bit of the newest checkpoint flips", "resumes from the one before", newest_checkpoint_is_corrupt
    ),
    "full-disk": Case("the disk is full for a while", "goes on and saves later", full_disk_with_room_again),
    "full-disk-for-good": Case(
        "the disk stays full, train.max_failed_saves 2", "ends with the reason; resumes later", full_disk_for_good
    ),
    "read-only": Case("the disk is read-only for a while", "goes on and saves later", read_only_in_between),
    "read-only-start": Case("the run's folder is read-only at the start", "is refused", read_only_from_the_start),
    "second-run": Case("a second run in the same folder", "is refused; the first goes on", second_run_in_the_folder),
    "rank-killed": Case(
        f"a rank of three is killed, train.rank_timeout {RANK_TIMEOUT:g}",
        "the others end with its name",
        rank_is_killed,
    ),
    "first-rank-killed": Case("rank 0 of two is killed", "the other ends with its name", first_rank_is_killed),
    "rank-stopped": Case(
        f"a rank of two is stopped (SIGSTOP), train.rank_timeout {RANK_TIMEOUT:g}",
        "the other ends with its name",
        rank_is_stopped,
    ),
    "rank-hangs": Case(
        f"a rank of two gets no data, train.hang_timeout {HANG_TIMEOUT:g}",
        "both end with its name",
        loading_process_of_a_rank_hangs,
    ),
    "loader-killed": Case("a loading process is killed", "is replaced", loading_process_is_killed),
    "loaders-killed": Case(
        "every loading process is killed as it starts", "ends with the reason", loading_processes_die_again_and_again
    ),
    "not-finite": Case(
        "the losses become NaN, train.max_not_finite 5", "keeps the batch, ends with the reason", losses_become_nan
    ),
    "clock": Case("the clock jumps by a day, forth and back", "nothing; stopped and resumed as ever", clock_jumps),
    "torchrun": Case("a rank is killed under torchrun --max-restarts 2", "goes on", torchrun_restarts),
}
