"""log_mel_spectrogram on a CUDA device: what emulation, simulation and compilation cannot test."""

from __future__ import annotations

import threading

import pytest
import torch

from reserve_kernels import backends, log_mel_spectrogram
from tests.kernels.log_mel_cases import CASES, reference
from tests.kernels.numerics import assert_as_good_as_reference

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

# Clock cycles: about a second.
LONG = 1_500_000_000


def on_gpu(waveform: torch.Tensor, *, offsets: torch.Tensor | None = None, **arguments) -> torch.Tensor:
    """The kernel's result on the CPU, for arguments on the CPU."""
    offsets = None if offsets is None else offsets.cuda()
    return log_mel_spectrogram(waveform.cuda(), offsets=offsets, backend="cuda", **arguments).cpu()


@pytest.mark.parametrize(("check", "arguments"), CASES.values(), ids=CASES.keys())
def test_the_kernel_passes_the_tests_of_the_emulation(check, arguments):
    check(on_gpu, *arguments)


def test_auto_picks_the_kernel():
    picked = [r.backend for r in backends() if r.op == "log_mel_spectrogram" and r.device == "cuda" and r.picked]
    assert picked == ["cuda"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_match_float64(dtype):
    waveform = torch.randn(2, 6000, dtype=torch.float64).to(dtype)
    leaves = [waveform.double(), waveform.float(), waveform.cuda()]
    for leaf, backend in zip(leaves, ["reference", "reference", "cuda"], strict=True):
        out = log_mel_spectrogram(leaf.requires_grad_(), backend=backend)
        out.backward(torch.linspace(-1, 1, out.numel()).view(out.shape).to(out))
    truth, plain, ours = (leaf.grad.cpu() for leaf in leaves)
    assert_as_good_as_reference(ours, truth, plain.to(dtype))


def test_two_runs_give_the_same_bits():
    waveform = torch.randn(64, 50000)
    assert torch.equal(on_gpu(waveform), on_gpu(waveform))


def test_the_kernel_runs_in_the_current_stream():
    source, waveform = torch.randn(8, 20000), torch.zeros(8, 20000, device="cuda")
    ready = source.cuda()
    log_mel_spectrogram(waveform, backend="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(LONG // 10)
        waveform.copy_(ready)
        out = log_mel_spectrogram(waveform, backend="cuda")
        host = out.cpu()
    assert_as_good_as_reference(host, reference(source.double()), reference(source))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_kernel_runs_on_the_device_of_its_input():
    waveform = torch.randn(4, 20000)
    out = log_mel_spectrogram(waveform.to("cuda:1"), backend="cuda")
    assert out.device == torch.device("cuda", 1)
    assert_as_good_as_reference(out.cpu(), reference(waveform.double()), reference(waveform))


def test_host_threads_with_different_hops_run_at_once():
    waveform = torch.randn(4, 20000)
    hops = [2, 588, 1024, 1536, 64, 1200, 882, 300]
    expected = {hop: on_gpu(waveform, hop_length=hop) for hop in hops}
    start, wrong = threading.Barrier(len(hops)), []

    def work(hop: int) -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                mine = waveform.cuda()
                start.wait()
                outs = [log_mel_spectrogram(mine, hop_length=hop, backend="cuda") for _ in range(30)]
                if not all(torch.equal(out.cpu(), expected[hop]) for out in outs):
                    wrong.append(f"hop {hop}: other values")
        except Exception as error:
            wrong.append(f"hop {hop}: {error}")
            start.abort()

    threads = [threading.Thread(target=work, args=(hop,)) for hop in hops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def need_memory(gigabytes: float) -> None:
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if free < gigabytes * 1e9:
        pytest.skip(f"{gigabytes} GB of GPU memory are needed, {free / 1e9:.1f} are free")


def assert_rows_are_right(out: torch.Tensor, waveform: torch.Tensor, first: int, hop: int, n_mels: int) -> None:
    """Rows `first` to `first` + 64 of one clip's `out`, which end the clip or lie inside it."""
    # A piece of the clip that begins 768 samples before them or more, at a frame.
    begin = first - -(-768 // hop)
    piece = waveform[begin * hop : (first + 64) * hop + 768].cpu()
    rows = slice(first - begin, first - begin + 64)
    arguments = {"hop_length": hop, "n_mels": n_mels}
    truth, plain = (reference(x, **arguments)[rows] for x in (piece.double(), piece))
    assert_as_good_as_reference(out[first : first + 64].cpu(), truth, plain.to(out.dtype))


def test_an_output_of_more_than_2_to_the_31_elements():
    need_memory(6)
    frames, n_mels = (1 << 21) + 1000, 1024
    waveform = torch.randn(2 * (frames - 1), device="cuda")
    out = log_mel_spectrogram(waveform, hop_length=2, n_mels=n_mels, out_dtype=torch.bfloat16, backend="cuda")
    assert out.numel() > 1 << 31
    for first in (10_000, (1 << 20) - 32, (1 << 21) - 32, frames - 64):
        assert_rows_are_right(out, waveform, first, 2, n_mels)


def test_a_clip_of_more_than_2_to_the_31_samples():
    need_memory(12)
    frames = (1 << 31) // 1536 + 1000
    waveform = torch.zeros(1536 * (frames - 1), device="cuda")
    waveform[-(1 << 22) :].normal_()
    waveform[(1 << 31) - (1 << 20) : (1 << 31) + (1 << 20)].normal_()
    out = log_mel_spectrogram(waveform, hop_length=1536, backend="cuda")
    for first in ((1 << 31) // 1536 - 32, frames - 64):
        assert_rows_are_right(out, waveform, first, 1536, 64)


@pytest.mark.parametrize("backend", ["cuda", "reference"])
def test_a_captured_graph_replays_with_new_samples(backend):
    waveform = torch.randn(4, 20000, device="cuda")
    offsets = torch.tensor([0, 7000, 20000], device="cuda")

    def run() -> list[torch.Tensor]:
        ragged = log_mel_spectrogram(waveform[0], offsets=offsets, max_samples=13000, backend=backend)
        return [log_mel_spectrogram(waveform, append_speed=True, backend=backend), ragged]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    waveform.normal_()
    for hop in range(2, 100, 2):  # parameters enough to push the captured ones out of a cache of a few dozen
        log_mel_spectrogram(waveform, hop_length=hop, backend=backend)
    graph.replay()
    for out, expected in zip(captured, run(), strict=True):
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_capturing_before_the_first_call_is_refused():
    waveform = torch.randn(3000, device="cuda")
    capture, refused = torch.cuda.graph(torch.cuda.CUDAGraph()), "must run once with the same parameters"
    with pytest.raises(RuntimeError, match=refused), capture:
        log_mel_spectrogram(waveform, f_min=31.25, backend="cuda")


@pytest.mark.parametrize("backend", ["cuda", "reference"])
def test_the_host_never_waits(backend):
    waveform = torch.randn(8, 20000, device="cuda", requires_grad=True)
    flat, offsets = waveform.detach().flatten(), torch.tensor([0, 90000, 160000], device="cuda", dtype=torch.int32)

    def run() -> None:
        log_mel_spectrogram(waveform, append_speed=True, out_dtype=torch.bfloat16, backend=backend).sum().backward()
        log_mel_spectrogram(flat, offsets=offsets, max_samples=90000, backend=backend)

    run()
    torch.cuda.synchronize()
    end = torch.cuda.Event()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(LONG)
        run()
        end.record()
        # Were the library to wait, which PyTorch does not see, the long kernel would be over.
        assert not end.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_compiles_as_one_graph():
    waveform = torch.randn(2, 6000, device="cuda")
    compiled = torch.compile(lambda x: log_mel_spectrogram(x, backend="cuda") * 2, fullgraph=True)
    torch.testing.assert_close(compiled(waveform), log_mel_spectrogram(waveform, backend="cuda") * 2)


def test_unsupported_parameters_run_the_reference():
    waveform = torch.randn(3000)
    out = log_mel_spectrogram(waveform.cuda(), n_fft=1534)
    torch.testing.assert_close(out.cpu(), reference(waveform, n_fft=1534), atol=1e-4, rtol=1e-4)
    with pytest.raises(RuntimeError, match=r"backend 'cuda' cannot run: n_fft .* no other prime factors"):
        log_mel_spectrogram(waveform.cuda(), n_fft=1534, backend="cuda")
