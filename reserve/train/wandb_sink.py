"""Weights & Biases: one of its runs for a run's folder, also when that is resumed."""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reserve.fs import write_text_atomic
from reserve.train.sinks import Sink

logger = logging.getLogger(__name__)

ID_NAME = "wandb_id"
"""The file of a run's folder that holds the id of its W&B run."""
FINISH_SECONDS = 60
"""How long the end of a run waits for what W&B has not uploaded yet; `wandb sync` uploads the rest."""


def check_wandb(project: str) -> None:
    """Raises ModuleNotFoundError naming the extra if a project is named and the package is missing."""
    found = find_spec("wandb") if project else None
    # In a run's folder, W&B's own folder of this name is found, as a package without a file.
    if project and (found is None or found.origin is None):
        raise ModuleNotFoundError(
            "train.wandb_project needs the package wandb: pip install 'merlot-reserve[wandb]'", name="wandb"
        )


def wandb_sinks(run: Path, project: str, settings: Mapping[str, Any]) -> list[Sink]:
    """The sink of a run's W&B run, none without a project.

    A first start raises what wandb raises, such as for a missing key. A resumed run goes on without W&B then, with a
    warning: it may be restarted at night, when the network is down.
    """
    if not project:
        return []
    resumed = (run / ID_NAME).is_file()
    try:
        return [WeightsAndBiases(run, project, settings)]
    except Exception as error:
        if not resumed:
            reason = str(error).rstrip(".")
            raise RuntimeError(
                f"Weights & Biases cannot be used: {reason}. Log in with `wandb login`, set WANDB_MODE=offline, or "
                "leave out train.wandb_project"
            ) from error
        logger.warning("this start is not shown by Weights & Biases: %s", error)
        return []


class WeightsAndBiases:
    """A W&B run of `project`, with the run's settings as its config. Its files are in `run`/wandb.

    The id is kept in the run's folder, so a resumed run continues the same W&B run. Entity, mode and key come from
    W&B's environment variables. Each point has its step in a metric of its own: W&B's count cannot go back, and a
    resumed run repeats the steps after its checkpoint.
    """

    def __init__(self, run: Path, project: str, settings: Mapping[str, Any]) -> None:
        import wandb

        # W&B would block the end of the run for as long as the network is down.
        os.environ.setdefault("WANDB_FINISH_TIMEOUT", f"{FINISH_SECONDS}")
        stored = _stored_id(run)
        identity = stored or secrets.token_hex(8)
        name = run.resolve().name
        self._run = wandb.init(
            project=project, id=identity, resume="allow", dir=str(run), name=name, config=dict(settings)
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        if not stored:
            write_text_atomic(run / ID_NAME, f"{identity}\n")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=1 if failed else 0)


def _stored_id(run: Path) -> str:
    """The id in the run's folder, empty if there is none. Raises ValueError where it is none of W&B's."""
    path = run / ID_NAME
    if not path.is_file():
        return ""
    identity = path.read_text("utf-8", errors="replace").strip()
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", identity):
        raise ValueError(f"{path} must hold the id of a W&B run; got {identity!r:.80}")
    return identity
