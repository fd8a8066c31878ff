"""Where in the data a resumed run goes on, and what its new settings change about the data."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reserve.config import FitConfig
from reserve.config.load import RUN_CONFIG, plain_values, read_yaml
from reserve.data.order import ExampleStream
from reserve.tasks import Task
from reserve.train.state import Progress

logger = logging.getLogger(__name__)

DECIDES_EXAMPLES = ("seed", "audio_track")
"""Settings of the section train that decide what the examples are, beside the task's own."""


def stored_settings(run: Path) -> Mapping[str, Any]:
    """What a run's config.yaml holds; empty without one. Raises ValueError.

    These are the settings of its last checkpoint, or of one that was not complete when the run was killed.
    """
    path = run / RUN_CONFIG
    return read_yaml(path) if path.is_file() else {}


def place_in_data(progress: Progress, stored: Mapping[str, Any], stream: ExampleStream, config: FitConfig) -> int:
    """The position of the next batch in the stream of examples.

    `stored` are the settings that the checkpoint was made with. Checkpoints of older versions hold no place: theirs
    follows from their steps and the stored batch size. Where the order of the examples is another one, with another
    seed, data set or mixture, a place in it means nothing and the next epoch of all examples begins.
    """
    train, examples = _section(stored, "train"), len(stream)
    place, size = progress.place, progress.examples
    if place is None or size is None:
        stored_batch, size = train.get("batch_size"), examples
        batch = stored_batch if type(stored_batch) is int and stored_batch > 0 else config.train.batch_size
        epoch, batches = divmod(progress.step, max(examples // batch, 1))
        place = epoch * examples + batches * batch
        if progress.step:
            logger.info(
                "the checkpoint does not hold its place in the data; counted from its %d steps of %d examples: "
                "epoch %d, example %d",
                progress.step,
                batch,
                epoch + 1,
                batches * batch + 1,
            )
    seed = train.get("seed", config.train.seed) if progress.seed is None else progress.seed
    same_numbers = (examples, config.train.seed) == (size, seed)
    if same_numbers and stream.identity == progress.order:
        return place
    epochs = -(-place // size)
    if place and same_numbers:
        logger.warning(
            "the sets of examples or their weights changed, and with them the order of the examples: starting epoch %d",
            epochs + 1,
        )
    elif place:
        logger.warning(
            "train.seed or the number of examples changed (now %d and %d, before %s and %d), and with it the order of "
            "the examples: starting epoch %d",
            config.train.seed,
            examples,
            seed,
            size,
            epochs + 1,
        )
    return epochs * examples


def warn_of_other_data(stored: Mapping[str, Any], task: Task[Any, Any], config: FitConfig) -> None:
    """Warns of settings that changed since the last checkpoint and decide what the examples are."""
    train = plain_values(config.train)
    now = dict(_flat(task.settings())) | {f"train.{name}": train[name] for name in DECIDES_EXAMPLES}
    before = dict(_flat(stored))
    changed = [
        f"{name} {_short(value)}, not {_short(before[name])}"
        for name, value in now.items()
        # A setting that an older version did not have had the default, whatever it was.
        if name in before and before[name] != value and not name.startswith("model.")
    ]
    if changed:
        logger.warning("the run resumes with other data settings: %s", "; ".join(changed))


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = settings.get(name)
    return section if isinstance(section, Mapping) else {}


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings by name, those of sections as SECTION.KEY."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 200 else f"{text[:200]} …"
