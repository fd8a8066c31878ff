from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch

from reserve_kernels import backends, native, rotary_attention
from reserve_kernels.attention import availability

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
IMPORT_ERROR = availability._import_error


def reasons(device: torch.device, dtype: torch.dtype) -> dict[str, str | None]:
    return {b.name: b.unavailable(device, dtype) for b in availability.BACKENDS}


@pytest.fixture
def capability(monkeypatch):
    """Simulates a CUDA device of a compute capability, with every library installed, for the availability checks."""

    def have(major: int) -> None:
        properties = SimpleNamespace(major=major, minor=0)
        monkeypatch.setattr(availability, "_import_error", lambda module: None)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        monkeypatch.setattr(availability, "INSTALLED", dict.fromkeys(availability.INSTALLED, True))

    return have


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("built", [True, False])
def test_on_the_cpu_the_native_passes_sdpa_and_the_reference_run(monkeypatch, dtype, built):
    monkeypatch.setattr(native, "cpu_unavailable", lambda: None if built else "it is not built")
    runs = [name for name, reason in reasons(CPU, dtype).items() if reason is None]
    has_native = built and dtype in (torch.float32, torch.bfloat16)
    assert runs == ["native"] * has_native + ["sdpa", "reference"]


def test_on_a_gpu_all_run_in_half_precision(capability):
    capability(9)
    found = reasons(CUDA, torch.bfloat16)
    assert found.pop("native") == "it runs on the CPU only"
    assert set(found.values()) == {None}


def test_without_a_gpu_the_other_kernels_say_so(monkeypatch):
    """Tensors under FakeTensorMode can be on a GPU that the machine does not have."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(availability, "INSTALLED", dict.fromkeys(availability.INSTALLED, True))
    found = reasons(CUDA, torch.bfloat16)
    assert {name for name, reason in found.items() if reason is None} == {"sdpa", "reference"}
    assert found["triton"] == "PyTorch sees no CUDA device"


def test_an_old_gpu_is_named(capability):
    capability(7)
    assert reasons(CUDA, torch.float16)["triton"] == "it needs compute capability 8.0; this device has 7.0"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_precision_on_a_gpu_goes_to_sdpa(capability, dtype):
    capability(9)
    runs = [name for name, reason in reasons(CUDA, dtype).items() if reason is None]
    assert runs == ["sdpa", "reference"]


@pytest.mark.parametrize(("major", "runs"), [(8, []), (9, ["flash_attn_3", "flash_attn_4"]), (10, ["flash_attn_4"])])
def test_newer_flash_attention_runs_on_the_gpus_it_is_made_for(capability, major, runs):
    capability(major)
    found = {name: reason for name, reason in reasons(CUDA, torch.bfloat16).items() if name[-2:] in ("_3", "_4")}
    assert [name for name, reason in found.items() if reason is None] == runs
    wanted = {"flash_attn_3": "9.x", "flash_attn_4": "9.x or 10.x"}
    assert {name: reason for name, reason in found.items() if reason is not None} == {
        name: f"it is used on compute capability {wanted[name]}; this device has {major}.x"
        for name in found
        if name not in runs
    }


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Installs empty files of flash-attn and its relatives, and returns which libraries are seen as installed."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(*files):
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text("")
        importlib.invalidate_caches()
        return {
            library for library in availability.MODULES if "flash" in library and availability._is_installed(library)
        }

    return install


FLASH_2 = ("flash_attn/__init__.py", "flash_attn/flash_attn_interface.py")
FLASH_4 = ("flash_attn/cute/__init__.py", "flash_attn_4-4.0.0b36.dist-info/METADATA")


@pytest.mark.parametrize(
    ("files", "installed"),
    [
        ((), set()),
        (FLASH_2, {"flash-attn"}),
        # It has a copy of what became version 4.
        ((*FLASH_2, "flash_attn/cute/__init__.py"), {"flash-attn"}),
        (("flash_attn_interface.py",), {"flash-attn-3"}),
        (FLASH_4, {"flash-attn-4"}),
        ((*FLASH_2, *FLASH_4), {"flash-attn", "flash-attn-4"}),
    ],
    ids=["none", "2", "2 with a copy", "3", "4", "2 and 4"],
)
def test_libraries_that_share_a_name_are_told_apart(packages, files, installed):
    assert packages(*files) == installed


def test_a_gpu_of_another_make_is_named(capability, monkeypatch):
    capability(9)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert reasons(CUDA, torch.bfloat16)["triton"] == "it was made for NVIDIA's GPUs; this PyTorch is for AMD's"


def test_a_library_that_is_installed_but_broken_is_named(capability, tmp_path, monkeypatch):
    """Such as a flash-attn that was built for another PyTorch."""
    capability(9)
    (tmp_path / "broken_flash_attn.py").write_text("raise ImportError('undefined symbol: x\\nand more')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(availability, "_import_error", IMPORT_ERROR)
    monkeypatch.setitem(availability.MODULES, "flash-attn", "broken_flash_attn")
    reason = reasons(CUDA, torch.bfloat16)["flash_attn"]
    assert reason == "flash-attn is installed and cannot be imported: ImportError: undefined symbol: x"


def test_a_compiled_call_imports_nothing(monkeypatch):
    monkeypatch.setattr(availability, "_import_error", lambda module: "imported")
    unusable = torch.compile(lambda x: (x, availability._unusable("torch.nn.attention.varlen")), backend="eager")
    assert unusable(torch.zeros(1))[1] is None


def test_naming_one_that_cannot_run_says_why():
    qkv = torch.randn(3, 3, 1, 64, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match=r"backend 'varlen' cannot run on cpu .*: it needs a CUDA device"):
        rotary_attention(qkv, torch.tensor([0, 3], dtype=torch.int32), 3, backend="varlen")


def test_the_table_has_a_row_for_each():
    rows = {row.backend: row for row in backends() if row.op == "rotary_attention" and row.device == "cpu"}
    assert list(rows) == [b.name for b in availability.BACKENDS]
    assert rows["native" if native.cpu_unavailable() is None else "sdpa"].picked
