"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import importlib.util
import os
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

if importlib.util.find_spec("hypothesis"):  # a GPU machine may lack it
    import hypothesis

    # No test depends on the speed of the machine, and every run draws the same examples.
    hypothesis.settings.register_profile(
        "repeatable", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("repeatable")


def pytest_fixture_setup(fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest) -> None:
    _seed(f"{request.node.nodeid} {fixturedef.argname} {getattr(request, 'param_index', 0)}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    _seed(item.nodeid)


def _seed(name: str) -> None:
    """Seeds the global generators. A test draws the same numbers whatever ran before it in its process, alone too."""
    seed = zlib.crc32(name.encode("utf-8", "surrogatepass"))
    random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def pytest_collection() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """Leaves what the tests' modules hold out of garbage collections, which would search it each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # what is left frozen is reported as leaked at exit


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of golden tensors and real clips next to the checkout on development machines."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    # Another folder may have this name.
    if not all((folder / name).is_dir() for name in ("golden", "realdata")):
        pytest.skip("../shared does not exist")
    return folder


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """Fills uninitialised memory with NaN, so that reads of it show."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills. One of pytest-xdist's workers makes it; no test may change it."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # the workers' folders are in that of the run
    folder, finished = root / name, root / f"{name}.finished"
    with FileLock(root / f"{name}.lock"):
        if not finished.exists():
            make(folder)
            finished.touch()
    return folder


@pytest.fixture(scope="session")
def narrated_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `train` (2) and `heldout` (1) synthetic narrated videos of a minute and a half."""
    from reserve.synthetic.videos import make_videos

    pytest.importorskip("av", reason="needs the extra video")
    pytest.importorskip("espeakng_loader", reason="needs the extra demo")
    return _made_once(
        tmp_path_factory, "narrated", lambda folder: make_videos(folder, videos=3, held_out=1, seed=3, workers=1)
    )


@pytest.fixture(scope="session")
def task_data_sets(narrated_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small data set of synthetic videos for each downstream task, named as in DATA_SETS."""
    from reserve.synthetic.datasets import DATA_SETS, make_data_set

    def make(folder: Path) -> None:
        for task in DATA_SETS:
            make_data_set(task, narrated_videos, folder / task, questions=6, seed=1)

    return _made_once(tmp_path_factory, "tasks", make)
