from __future__ import annotations

import functools
import importlib.metadata

import pytest
import torch

from reserve_kernels.attention import tiles, tune

PASSES = {"forward": lambda chosen: chosen, "backward": lambda chosen: chosen}
LONG = tiles.CHOSEN[90]["long"]


def timer(milliseconds: dict[tiles.Tile, float], kernel: str):
    """A timer with a known time for each tile of `kernel`; everything else takes 1 ms."""

    def times(calls: list[functools.partial]) -> list[float]:
        return [milliseconds.get(call()[kernel], 1.0) for call in calls]

    return times


def test_the_fastest_tile_is_kept():
    fastest = tiles.CANDIDATES[90]["forward"][-1]
    assert fastest != LONG["forward"]
    assert tune.tune_class("long", 90, PASSES, timer({fastest: 0.5}, "forward")) == LONG | {"forward": fastest}


def test_the_librarys_choice_stays_unless_another_is_clearly_faster():
    other = tiles.CANDIDATES[90]["forward"][-1]
    assert tune.tune_class("long", 90, PASSES, timer({other: 0.99}, "forward")) == LONG


def test_a_tile_that_fails_is_left_out(capsys):
    fastest, fails = tiles.CANDIDATES[90]["forward"][-1], LONG["forward"]

    def forward(chosen):
        if chosen["forward"] == fails:
            raise RuntimeError("out of shared memory")
        return chosen

    passes = PASSES | {"forward": forward}
    assert tune.tune_class("long", 90, passes, timer({fastest: 0.999}, "forward"))["forward"] == fastest
    assert f"skipped {fails}: RuntimeError: out of shared memory" in capsys.readouterr().out


def test_no_tile_that_works_is_an_error():
    def fail(chosen):
        raise RuntimeError("no kernel image")

    with pytest.raises(RuntimeError, match=r"no tile works: .*no kernel image"):
        tune.tune_class("long", 90, PASSES | {"forward": fail}, timer({}, "forward"))


def test_a_tile_that_is_too_small_for_the_class_is_not_tried(monkeypatch):
    small = tiles.Tile(32, 32, 4, 1)
    candidates = tiles.CANDIDATES[90] | {"short_forward": (small, tiles.Tile(64, 64, 4, 1))}
    monkeypatch.setitem(tiles.CANDIDATES, 90, candidates)
    chosen = tune.tune_class("short", 90, PASSES, timer({small: 0.1}, "short_forward"))
    assert chosen["short_forward"] == tiles.Tile(64, 64, 4, 1)


@pytest.mark.parametrize("name", tiles.LENGTH_CLASSES)
def test_the_batches_are_of_their_class(name):
    assert tiles.length_class(max(tune.BATCHES[name])) == name


def test_each_class_is_stored_when_it_is_tuned_and_others_are_kept(tmp_path, monkeypatch):
    """A run that ends early, or tunes a few classes, loses nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "3.6.0")
    chip, device = tiles.Chip(90, "NVIDIA H100"), torch.device("cpu")

    def passes(lengths, device):
        if lengths == tune.BATCHES["tiny"]:
            raise KeyboardInterrupt
        return PASSES

    monkeypatch.setattr(tune, "make_passes", passes)
    tune.tune(chip, device, timer({}, "forward"), ["long"])
    with pytest.raises(KeyboardInterrupt):
        tune.tune(chip, device, timer({}, "forward"), ["medium", "tiny"])
    assert tiles.read_choices(tiles.tuned_file(chip).read_text(), 90).keys() == {"long", "medium"}
    tiles.tuned.cache_clear()


def test_an_unknown_class_is_refused(capsys):
    with pytest.raises(SystemExit):
        tune.main(["huge"])
    assert "no length class 'huge'; choose from tiny, short, medium, long" in capsys.readouterr().err


def test_tuned_tiles_are_picked_from_then_on(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "3.6.0")
    monkeypatch.setattr(tune, "make_passes", lambda lengths, device: PASSES)
    chip = tiles.Chip(90, "NVIDIA H200")
    tiles.tuned.cache_clear()
    assert tiles.pick(chip, 640) == LONG
    fastest = tiles.CANDIDATES[90]["dq"][0]
    times = dict.fromkeys(tiles.CANDIDATES[90]["dq"], 2.0) | {fastest: 0.5}
    tune.tune(chip, torch.device("cpu"), lambda calls: [times.get(call().get("dq"), 1.0) for call in calls])
    assert tiles.pick(chip, 640)["dq"] == fastest
    tiles.tuned.cache_clear()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(RuntimeError, match="tuning needs a CUDA device"):
        tune.main([])
