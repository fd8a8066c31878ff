"""The run's log: what is written, read back, and dropped when a run is resumed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from reserve.train.metrics import Metrics, NoMetrics, read_metrics

LOSSES = {"loss": 6.0, "imgs_to_audio": 1.0, "text_to_audio": 2.0, "stuff_to_span": 3.0}


def log(folder, steps, *, first_step=0, **values):
    with Metrics(folder, first_step=first_step, total_steps=10, batch_size=4, shown=tuple(LOSSES)) as metrics:
        for step in steps:
            metrics.advance()
            metrics.log(step, LOSSES | values)


def steps(folder) -> list[float]:
    path = folder / "metrics.jsonl"
    return [line["step"] for line in read_metrics(path)] if path.exists() else []


def test_a_line_is_json_with_the_step_the_losses_and_the_speed(tmp_path):
    log(tmp_path, [3], loss=6.12345678)
    (text,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    line = json.loads(text)
    assert line.keys() == {"step", *LOSSES, "examples_per_second", "seconds_per_step", "seconds"}
    assert type(line["step"]) is int
    assert (line["step"], line["loss"], line["stuff_to_span"]) == (3, 6.12345678, 3.0)
    assert line["examples_per_second"] > 0
    assert line["seconds"] >= 0


def test_the_speed_counts_the_examples_since_the_line_before(tmp_path, monkeypatch):
    clock = iter([100.0, 102.0, 110.0])
    monkeypatch.setattr("reserve.train.metrics.time.perf_counter", lambda: next(clock))
    log(tmp_path, [3, 7])
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["examples_per_second"] for line in lines] == [3 * 4 / 2, 4 * 4 / 8]
    assert [line["seconds_per_step"] for line in lines] == [pytest.approx(2 / 3), 2]
    assert [line["seconds"] for line in lines] == [2, 10]


def test_the_speed_leaves_out_the_time_of_evaluations(tmp_path, monkeypatch):
    clock = iter([100.0, 110.0])
    monkeypatch.setattr("reserve.train.metrics.time.perf_counter", lambda: next(clock))
    log(tmp_path, [2], seconds_evaluating=6.0)
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert (line["examples_per_second"], line["seconds_per_step"], line["seconds"]) == (2 * 4 / 4, 2, 10)


class FullDisk:
    """A sink that has no space left."""

    def write(self, step, values):
        raise OSError("no space left")

    def close(self, *, failed):
        pass


def test_what_could_not_be_written_is_counted_in_the_next_line(tmp_path):
    with Metrics(tmp_path, first_step=0, total_steps=10, batch_size=4, boards=[FullDisk()]) as metrics:
        for step in (1, 2, 3):
            metrics.log(step, LOSSES)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line.get("failed_writes") for line in lines] == [None, 1, 2]


def test_an_evaluation_goes_to_a_file_of_its_own_and_to_the_boards_under_heldout(tmp_path):
    kept = []

    class Board(FullDisk):
        def write(self, step, values):
            kept.append((step, dict(values)))

    with Metrics(tmp_path, first_step=0, total_steps=10, batch_size=4, boards=[Board()]) as metrics:
        metrics.log_evaluation(2, {"accuracy": 0.5, "rank": math.nan}, 1.5)
    ((step, values),) = kept
    assert (step, values.pop("heldout/accuracy"), values.pop("heldout/seconds")) == (2, 0.5, 1.5)
    assert math.isnan(values.pop("heldout/rank"))
    assert not values
    text = (tmp_path / "evaluations.jsonl").read_text()
    assert json.loads(text) == {"step": 2, "accuracy": 0.5, "rank": None, "seconds": 1.5}
    assert steps(tmp_path) == []


def test_a_log_on_a_full_disk_does_not_end_the_run(tmp_path, monkeypatch):
    """Where the disk is full, a run whose stderr is a file there cannot print either."""
    monkeypatch.setattr("reserve.train.metrics.sys.stderr", open("/dev/full", "w", buffering=1))  # noqa: SIM115
    log(tmp_path, [1])
    assert steps(tmp_path) == [1]


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path):
    log(tmp_path, [1, 2, 3, 4])
    log(tmp_path, [3, 4, 5], first_step=2)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]


def test_resuming_gives_tensorboard_each_step_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log(tmp_path, [1, 2, 3, 4])
    log(tmp_path, [3], first_step=2)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("loss")] == [1, 2, 3]


def test_restarting_drops_every_line(tmp_path):
    log(tmp_path, [1, 2])
    log(tmp_path, [1])
    assert steps(tmp_path) == [1]


def test_small_numbers_keep_their_digits(tmp_path):
    log(tmp_path, [1], learning_rate=1.06666666666e-7)
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["learning_rate"] == 1.06666667e-7


@pytest.mark.parametrize("value", [1.0, 11.618, 1e-30, 3e30])
def test_neighbouring_float32_losses_differ_in_the_log(tmp_path, value):
    """So that equal lines of two runs mean equal losses, bit for bit."""
    loss = np.float32(value)
    neighbours = [float(np.nextafter(loss, np.float32(end))) for end in (0, np.inf)]
    for step, number in enumerate([*neighbours, float(loss)], 1):
        log(tmp_path, [step], first_step=step - 1, loss=number)
    logged = [np.float32(line["loss"]) for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert logged == [*map(np.float32, neighbours), loss]
    # Resuming reads and writes the lines again.
    log(tmp_path, [4], first_step=3)
    assert [np.float32(line["loss"]) for line in read_metrics(tmp_path / "metrics.jsonl")][:3] == logged


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_truncated_last_line_is_skipped_and_overwritten(tmp_path, cut):
    log(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    whole = [1, 2] if cut == 1 else [1]
    assert steps(tmp_path) == whole
    log(tmp_path, [3], first_step=2)
    assert steps(tmp_path) == [*whole, 3]


@pytest.mark.parametrize(
    "damaged", [b"[1, 2]", b'{"loss": 1}', b'{"step": 1, "loss": "x"}', b"\xff\xfe", b"[" * 100_000]
)
def test_damaged_lines_are_skipped_and_the_others_kept(tmp_path, damaged):
    log(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    first, second = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join((first, damaged, second)) + b"\n")
    assert steps(tmp_path) == [1, 2]
    log(tmp_path, [3], first_step=2)
    assert steps(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_nan_loss_stays_readable_json(tmp_path, value):
    log(tmp_path, [1], loss=value)
    (text,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["loss"] is None
    assert math.isnan(read_metrics(tmp_path / "metrics.jsonl")[0]["loss"])
    log(tmp_path, [2], first_step=1)
    assert steps(tmp_path) == [1, 2]


def test_without_a_terminal_each_line_is_printed(tmp_path, capsys):
    log(tmp_path, [5])
    printed = capsys.readouterr().err
    assert "step 5/10" in printed
    assert "loss 6.000" in printed
    assert "text_to_audio 2.000" in printed
    assert "s left" in printed


def test_only_the_first_rank_writes(tmp_path):
    with NoMetrics() as metrics:
        metrics.advance()
        metrics.log(1, LOSSES)
    assert not list(tmp_path.iterdir())
