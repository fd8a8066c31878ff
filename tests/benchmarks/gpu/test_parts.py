"""What the parts of a GPU session run: their selections of tests and benchmarks exist and need only the core."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from benchmarks.catalogue import GPU_BENCHMARKS
from benchmarks.contrastive_peers import CUDA_PEERS as CONTRASTIVE_PEERS
from benchmarks.gpu.parts import FULL, LAST, PARTS, PROFILED, ROOT, SHORT, SMALL, UNFIT, Session, gpu_tests
from benchmarks.gpu.run import GRACE_SECONDS
from benchmarks.interleaved import OURS
from reserve_kernels.registry import OPS
from tests.helpers.listed_tests import listed_tests

COLLECT = """
import sys
for name in {absent!r}:
    sys.modules[name] = None
import pytest
options = ["-q", "--collect-only", "-p", "pytest_benchmark.plugin", "-m", "gpu"]
sys.exit(pytest.main([*options, *{files!r}]))
"""
ABSENT = ["PIL", "av", "jinja2", "jsonargparse", "librosa", "matplotlib", "rich", "safetensors", "tokenizers", "yaml"]
ABSENT += ["huggingface_hub", "msgpack", "tensorboard", "threadpoolctl"]


@pytest.fixture(scope="module")
def collected() -> str:
    """What pytest collects of the GPU's tests and benchmarks where nothing but the core is installed."""
    files = [*gpu_tests(), *(f"benchmarks/{benchmark.name}.py" for benchmark in GPU_BENCHMARKS)]
    done = subprocess.run(
        [sys.executable, "-c", COLLECT.format(absent=ABSENT, files=files)],
        cwd=ROOT,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.mark.parametrize("file", [*gpu_tests(), *(f"benchmarks/{benchmark.name}.py" for benchmark in GPU_BENCHMARKS)])
def test_tests_and_benchmarks_need_nothing_but_the_core(collected, file):
    assert re.search(rf"^{re.escape(file)}::", collected, re.MULTILINE)


def test_the_tests_of_every_op_run_on_a_gpu():
    assert {f"tests/kernels/test_{op.folder}_cuda.py" for op in OPS} <= set(gpu_tests())


def commands(part: str, tmp_path, short: bool):
    return PARTS[part].commands(Session(tmp_path, short))


@pytest.mark.parametrize("short", [True, False])
def test_every_command_has_its_own_name(tmp_path, short):
    names = Counter(command.name for part in PARTS for command in commands(part, tmp_path, short))
    assert max(names.values()) == 1


@pytest.mark.parametrize("part", PARTS)
def test_every_part_has_time_for_each_command(part, tmp_path):
    shares = [command.share for command in commands(part, tmp_path, True)]
    assert (PARTS[part].seconds - GRACE_SECONDS) * min(shares) / sum(shares) >= 7


def test_the_parts_of_a_session_exist():
    assert {*SHORT, *FULL} <= PARTS.keys()


@pytest.mark.parametrize("part", ["library", "build"])
def test_the_build_requires_the_native_ops(part, tmp_path):
    (command,) = commands(part, tmp_path, True)
    assert command.extra == {"RESERVE_NATIVE": "1", "RESERVE_CUDA": "1"}


def test_chosen_tests_replace_all_tests(tmp_path):
    (command,) = PARTS["tests"].commands(Session(tmp_path, True, ("a.py::test_b", "@failed.txt")))
    assert command.command[-2:] == ["a.py::test_b", "@failed.txt"]
    assert not set(gpu_tests()) & set(command.command)


@pytest.fixture(scope="module")
def listed(tmp_path_factory) -> dict[str, list[str]]:
    """The ids of the tests that each command of some parts would run, by the command's name."""
    out, lists = tmp_path_factory.mktemp("listed"), {}
    for part in ("attention", "flex", "contrastive", "small", "tuned"):
        lists |= {command.name: [*command.command, "--list"] for command in commands(part, out, True)}
    for name, short in (("sanitize, short", True), ("sanitize, long", False)):
        command = commands("sanitize", out, short)[0].command
        lists[name] = [*command[command.index(sys.executable) :], "--collect-only"]
    return dict(zip(lists, listed_tests(list(lists.values())), strict=True))


def parameters(tests: list[str]) -> list[str]:
    """The parameters of the benchmarks, as pytest shows them."""
    assert {test.rpartition("::")[2].partition("[")[0] for test in tests} == {"test_cuda"}
    return [test.partition("[")[2][:-1] for test in tests]


def test_the_attention_part_measures_the_models_shapes(listed):
    shapes = ("joint", "vision", "audio")
    passes = ("forward", "forward+backward")
    cases = {f"{shape}-{one}" for shape in shapes for one in passes}
    peers = {"reserve", "varlen", "varlen, less: no position", "SDPA, padded and masked", "sdpa_cudnn"}
    libraries = {"flash_attn", "flash_attn_3", "xformers"}
    peers |= libraries | {f"{name}, less: no position" for name in ("reserve", *libraries)}
    assert set(parameters(listed["attention"])) == {f"{peer}-{case}" for peer in peers for case in cases}


@pytest.mark.parametrize(("command", "passes"), [("flex", "forward+backward"), ("flex-forward", "forward")])
def test_the_flex_part_measures_what_compiles_on_the_joint_shape(listed, command, passes):
    peers = ("reserve", "FlexAttention", "flash_attn_4", "flash_attn_4, less: no position")
    assert set(parameters(listed[command])) == {f"{peer}-joint-{passes}" for peer in peers}


def test_the_tuned_tiles_are_measured_on_the_models_shapes(listed):
    cases = {
        f"{shape}-{passes}" for shape in ("joint", "vision", "audio") for passes in ("forward", "forward+backward")
    }
    assert set(parameters(listed["attention-tuned"])) == {f"reserve-{case}" for case in cases}


@pytest.mark.parametrize(
    ("command", "shape"), [("contrastive", "6144, 49152, 768)"), ("contrastive-4096", "4096, 4096, 768)")]
)
def test_the_contrastive_part_measures_every_implementation(listed, command, shape):
    tests = parameters(listed[command])
    assert {test.partition("-(")[2] for test in tests} == {shape}
    assert {test.partition("-(")[0] for test in tests} == {OURS, *CONTRASTIVE_PEERS}


def test_the_small_part_measures_each_op(listed):
    assert "torchaudio" in parameters(listed["log_mel"])
    assert "AdamW fused, bfloat16 moments" in parameters(listed["optimizer"])
    assert "bias + quick GELU-reserve" in parameters(listed["small_ops"])


def names(tests: list[str]) -> list[str]:
    return [test.rpartition("/")[2] for test in tests]


@pytest.mark.parametrize("short", [True, False])
def test_the_sanitizer_runs_tests_of_every_op_and_skips_what_it_cannot_run(collected, listed, short):
    """It skips huge tensors, tilings one by one, graphs and compilation, by the names of their tests."""
    found = names(listed["sanitize, short" if short else "sanitize, long"])
    assert {name.partition("::")[0] for name in found} == {f"test_{op.folder}_cuda.py" for op in OPS}
    for part in (*UNFIT, *LAST):
        assert part in collected, f"no test's name contains {part!r}"
        assert not [name for name in found if part in name]
    if short:
        assert len(found) <= 4 * len(SMALL)


def test_the_profiled_kernels_exist():
    files = (path for folder in ("kernels", "csrc") for path in (ROOT / folder).rglob("*"))
    sources = "".join(path.read_text() for path in files if path.suffix in (".py", ".cpp", ".cu"))
    for name in PROFILED.split("|"):
        assert re.search(rf"(def |void .*|\s){name}\w*\(", sources), name
