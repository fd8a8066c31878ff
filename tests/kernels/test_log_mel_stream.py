from __future__ import annotations

import math

import pytest
import torch

from reserve_kernels import LogMelStream, backends, log_mel_spectrogram

RUNNABLE = [r.backend for r in backends() if r.op == "log_mel_spectrogram" and r.device == "cpu" and not r.reason]
pytestmark = pytest.mark.filterwarnings("ignore:log_mel_spectrogram. .* of the n_mels:UserWarning")

FRONT_ENDS = {
    "reserve": {},
    "reserve at speed 2, zeros": {"playback_speed": 2, "pad_mode": "constant"},
    "kaldi": {"preset": "kaldi"},
    "kaldi, centred": {"preset": "kaldi", "framing": "kaldi_centered", "pad_mode": "symmetric"},
    "clap": {"preset": "clap"},
    "torchaudio": {"preset": "torchaudio"},
    "whisper": {"preset": "whisper", "dynamic_range": math.inf},
    "inside, without the last": {"framing": "inside_window", "drop_last": True},
    "inside, short window": {"preset": "kaldi", "framing": "inside"},
    "hop beyond the window": {"n_fft": 400, "hop_length": 999, "framing": "inside"},
    "hop beyond the centred window": {"n_fft": 400, "hop_length": 999, "pad_mode": "replicate"},
    "centred window": {"preset": "kaldi", "framing": "centered_window"},
}


def streamed(samples: torch.Tensor, sizes: list[int], bands_first: bool, **arguments) -> torch.Tensor:
    stream = LogMelStream(arguments.pop("preset", "reserve"), bands_first=bands_first, **arguments)
    parts = [stream.push(chunk) for chunk in samples.split(sizes, dim=-1)]
    return torch.cat([*parts, stream.finish()], dim=-1 if bands_first else -2)


def random_sizes(total: int, most: int) -> list[int]:
    sizes: list[int] = []
    while sum(sizes) < total:
        sizes.append(min(int(torch.randint(0, most, ())), total - sum(sizes)))
    return sizes


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize("samples", [1, 130, 399, 400, 401, 1024, 9000])
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_chunks_give_the_frames_of_the_whole(front_end, samples, backend):
    arguments = FRONT_ENDS[front_end] | {"backend": backend}
    waveform = torch.randn(2, samples)
    bands_first = arguments.get("preset") in ("clap", "whisper")
    whole = log_mel_spectrogram(waveform, bands_first=bands_first, **arguments)
    for most in (7, 700, 9001):
        out = streamed(waveform, random_sizes(samples, most), bands_first, **arguments)
        assert out.shape == whole.shape
        torch.testing.assert_close(out, whole, atol=2e-5, rtol=1e-5)


def test_frames_come_as_soon_as_their_samples_are_there():
    stream = LogMelStream("kaldi")
    counts = [len(stream.push(torch.zeros(n))) for n in (399, 1, 159, 1, 0, 320)]
    assert counts == [0, 1, 0, 1, 0, 2]


def test_memory_does_not_grow():
    stream = LogMelStream()
    for _ in range(300):
        stream.push(torch.zeros(1000))
    assert stream._held.shape[-1] < 10_000


def test_a_long_hop_holds_no_more_than_a_window():
    stream = LogMelStream(hop_length=10**6)
    for _ in range(100):
        stream.push(torch.zeros(1000))
    assert stream._held.shape[-1] < 10_000


def test_a_push_that_fails_leaves_the_stream_as_it_was(monkeypatch):
    stream, clip = LogMelStream("kaldi"), torch.randn(3000)
    stream.push(clip[:1000])

    def fail(*arguments):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("reserve_kernels.log_mel.stream.spectrogram", fail)
        with pytest.raises(MemoryError):
            stream.push(clip[1000:])
    rest = torch.cat((stream.push(clip[1000:]), stream.finish()))
    torch.testing.assert_close(rest, log_mel_spectrogram(clip, preset="kaldi")[-len(rest) :])
    assert stream.push(clip).shape[0] == 17


def test_int16_chunks_are_as_float():
    samples = torch.randint(-20000, 20000, (3000,), dtype=torch.int16)
    out = streamed(samples, [1000, 2000], False, preset="ast")
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, log_mel_spectrogram(samples.float() / 32768, preset="ast"))


def test_a_finished_stream_begins_anew():
    stream, clip = LogMelStream("kaldi"), torch.randn(2000)
    first = torch.cat((stream.push(clip), stream.finish()))
    again = torch.cat((stream.push(clip), stream.finish()))
    assert torch.equal(first, again)
    with pytest.raises(ValueError, match="finish must follow a push"):
        stream.finish()


def test_an_empty_clip_has_no_frames():
    stream = LogMelStream("kaldi")
    assert stream.push(torch.zeros(2, 0)).shape == (2, 0, 80)
    assert stream.finish().shape == (2, 0, 80)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"preset": "whisper"}, ValueError, "dynamic_range must be math.inf in a stream, .*; got 8.0"),
        ({"backend": "fft"}, ValueError, "backend must be 'auto' or one of .*; got 'fft'"),
        ({"pad_mode": "circular"}, ValueError, "pad_mode must not be 'circular' in a stream"),
        ({"preset": "mfcc"}, ValueError, "preset must be one of 'reserve', .*; got 'mfcc'"),
        ({"hops": 3}, TypeError, "'hops' is no parameter of a front end; those are 'sample_rate'"),
        ({"out_dtype": torch.int16}, TypeError, "out_dtype must be a floating-point dtype"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        LogMelStream(**arguments)


@pytest.mark.parametrize(
    ("chunk", "error", "message"),
    [
        (torch.zeros(3, 100), ValueError, r"chunk must be \[2, samples\] on cpu, as the earlier ones; got \[3, 100\]"),
        (torch.zeros(2, 100, dtype=torch.float64), TypeError, "chunk must have the dtype of the earlier ones"),
        (torch.zeros(2, 100, dtype=torch.int64), TypeError, "chunk must have dtype float16"),
        (torch.tensor(1.0), ValueError, "got a scalar"),
        ([0.0], TypeError, "chunk must be a torch.Tensor"),
    ],
)
def test_a_chunk_unlike_the_earlier_ones_is_refused(chunk, error, message):
    stream = LogMelStream("kaldi")
    stream.push(torch.zeros(2, 100))
    with pytest.raises(error, match=message):
        stream.push(chunk)
