from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kernels import triton_versions
from tests.kernels.triton_versions import IN_CI, ON_GPU_MACHINES, environment, install, missing, pinned

if sys.platform != "linux":
    pytest.skip("Triton is for Linux", allow_module_level=True)


@pytest.fixture
def absent(tmp_path, monkeypatch):
    """No version is installed beside that of the environment, which is CI's."""
    monkeypatch.setattr(triton_versions, "folder", lambda version: triton_versions.ROOT / "absent" / version)
    monkeypatch.setattr(triton_versions, "here", lambda: IN_CI)


def test_gpu_machines_have_another_version_than_ci():
    assert ON_GPU_MACHINES != IN_CI


def test_a_file_without_triton_is_named():
    with pytest.raises(AssertionError, match=r"CITATION.cff names no version of triton"):
        pinned("CITATION.cff")


def test_the_environments_own_version_needs_no_folder(absent):
    assert missing(IN_CI) is None
    assert missing(ON_GPU_MACHINES) == f"triton {ON_GPU_MACHINES} is not in absent/{ON_GPU_MACHINES}: run make setup"


@pytest.mark.skipif(missing(ON_GPU_MACHINES) is not None, reason=str(missing(ON_GPU_MACHINES)))
def test_a_process_imports_the_version_it_is_started_for():
    code = "import importlib.metadata, triton; print(triton.__version__, importlib.metadata.version('triton'))"
    printed = subprocess.check_output([sys.executable, "-c", code], env=environment(ON_GPU_MACHINES), text=True)
    assert printed.split() == [ON_GPU_MACHINES] * 2


def test_a_version_without_a_package_for_this_python_is_an_error_that_says_so(absent, monkeypatch):
    failed = subprocess.CompletedProcess([], returncode=1)
    monkeypatch.setattr(triton_versions.subprocess, "run", lambda command, check: failed)
    with pytest.raises(
        SystemExit, match=rf"triton {ON_GPU_MACHINES} cannot be installed for Python 3\.\d+\. .*PYTHON="
    ):
        install(ON_GPU_MACHINES)


def test_what_is_installed_is_not_installed_again(monkeypatch):
    monkeypatch.setattr(triton_versions, "here", lambda: IN_CI)
    monkeypatch.setattr(triton_versions.subprocess, "run", lambda *_, **__: pytest.fail("it ran pip"))
    assert install(IN_CI) == f"triton {IN_CI} for the tests that compile kernels"
