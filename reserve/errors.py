"""Every exception of the package. Each message names the thing, what it was and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

RESUMABLE = 75
"""Exit status of a run that ended for a reason outside of it, and that its command can resume: EX_TEMPFAIL of
sysexits.h, for schedulers to requeue."""


class BadInput(Exception):
    """A file that cannot be used. The message is the reason; the caller adds the file's name."""


class DecodingTimeout(BadInput):
    """A file that takes longer to decode than its limit. Another machine may be fast enough."""


class Unsuited(Exception):
    """A file that a decoder is not for, as it found out when it read the packets. The message is the reason as a short
    phrase; the file goes to another decoder."""


class DamagedSample(BadInput):
    """A sample of a shard that is damaged: training skips it. The message names the shard and the video."""


class EnvironmentFailure(RuntimeError):
    """The machine is at fault, not a file: a full disk, a lost mount, too many open files.

    Work on many files must stop at it, since the next one would fail too.
    """


class TooFewSegments(BadInput):
    """A data set that cannot fill a single example."""


class NothingPrepared(Exception):
    """No file of a data set could be used. `report` (a PreparationReport) has the reason for each, as has the text."""

    def __init__(self, report: Any) -> None:
        self.report = report
        reasons = "\n".join(f"  {result.video_id}: {result.reason}" for result in report.skipped)
        super().__init__(f"none of the {len(report.results)} files could be used:\n{reasons}")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says what is wrong with it."""


class RankLost(RuntimeError):
    """A process of the run died, was stopped or hangs, or its host is lost; the message names it. The run can be
    resumed from its last checkpoint."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint whose files are not what was written; an older one may be whole."""


class RunInUse(RuntimeError):
    """Another process trains in the run's folder. The message names it."""


class NotFinite(RuntimeError):
    """Too many steps in a row had a loss or gradients that were not finite. The message says where the batch is."""


class Stopped(BaseException):
    """A signal ended the training. `checkpoint` is what it saved, None if it came before the first step.

    Not an Exception, as KeyboardInterrupt is none: code that survives failures must not survive it.
    """

    def __init__(self, signal_name: str, checkpoint: Path | None = None) -> None:
        self.signal_name, self.checkpoint = signal_name, checkpoint
        done = "before the first step" if checkpoint is None else f"with the checkpoint {checkpoint}"
        super().__init__(f"stopped by {signal_name} {done}")


class UsageError(Exception):
    """A command that cannot be run as asked; the message says why and what to do instead."""
