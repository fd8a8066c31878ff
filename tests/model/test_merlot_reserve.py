"""embed_video, embed_text_spans, embed_audio: values, shapes, unit norm, independence of the batch, and errors.

The quick tests run the widths of base and large with one layer per encoder and a small vocabulary; the slow ones run
both at full depth.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from reserve.batch.inputs import ModelInputs
from reserve.batch.packing import pack_joint
from reserve.batch.streams import JointStream
from reserve.batch.vocabulary import AUDIOSPAN, PAD
from reserve.checkpoint.official import load_official
from reserve.config import Config, DataConfig, ModelConfig
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.weights import empty_model
from reserve.tasks.pretrain.dataset import collate
from reserve.tasks.pretrain.random_examples import RandomExamples
from tests.helpers.plain_model import PlainModel
from tests.helpers.random_batches import VOCABULARY, random_weights
from tests.helpers.random_videos import random_video, restated
from tests.helpers.tiny import tiny

GRIDS = [(12, 20), (18, 32), (24, 24)]
SMALL = tiny(vocab_size=VOCABULARY)
BASE = ModelConfig()
LARGE = ModelConfig(hidden_size=1024, vit_num_layers=24, joint_num_layers=24)


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return random_weights(SMALL, np.random.default_rng(0))


@pytest.fixture(scope="module")
def model(weights: dict[str, np.ndarray]) -> MerlotReserve:
    """In float64 with large weights, so that a leak between sequences would show."""
    return load_official(weights, SMALL).double().requires_grad_(False)


def video(model: MerlotReserve, segments: int, grid: tuple[int, int], videos: int = 2) -> dict[str, torch.Tensor]:
    """Arguments of embed_video in the precision of the model."""
    return random_video(model.config, segments, grid, videos=videos, dtype=model.head.weight.dtype)


def assert_unit(vectors: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert torch.isfinite(vectors).all()
    # The 1e-5 under the root makes them a little shorter.
    assert (vectors.double().norm(dim=-1) - 1).abs().max() < tolerance


@pytest.mark.parametrize("segments", range(1, 9))
@pytest.mark.parametrize("grid", GRIDS)
def test_embed_video_on_every_grid_and_number_of_segments(
    model: MerlotReserve, weights: dict[str, np.ndarray], grid: tuple[int, int], segments: int
) -> None:
    arguments = video(model, segments, grid, videos=1)
    ours = model.embed_video(**arguments)
    assert ours.shape == (1, 19, 64)
    assert_unit(ours[:, :-2], 1e-4)
    assert (ours[:, -2:] == 0).all()
    config = replace(SMALL, output_grid=grid)
    plain = PlainModel({k: torch.from_numpy(v).double() for k, v in weights.items()}, config, DataConfig())
    truth = restated(plain, arguments)
    torch.testing.assert_close(ours[:, :-2], truth[:, :-2], rtol=1e-9, atol=1e-9)


def test_embed_video_does_not_depend_on_the_batch(model: MerlotReserve) -> None:
    arguments = video(model, 2, (2, 4), videos=3)
    together = model.embed_video(**arguments)
    for i in range(3):
        alone = model.embed_video(**{name: value[i : i + 1] for name, value in arguments.items()})
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("pointer", [-1, 0, 10**6])
def test_embed_video_ignores_padding_and_its_pointers(model: MerlotReserve, pointer: int) -> None:
    arguments = video(model, 2, (2, 4))
    before = model.embed_video(**arguments)
    for name, filler in (("tokens", PAD), ("subsegments", pointer)):
        arguments[name] = torch.cat((arguments[name], torch.full((2, 5), filler)), 1)
    after = model.embed_video(**arguments)
    torch.testing.assert_close(after[:, :19], before, rtol=1e-12, atol=1e-12)
    assert (after[:, 19:] == 0).all()


def test_embed_video_needs_no_sound_without_audiospans(model: MerlotReserve) -> None:
    arguments = video(model, 2, (2, 4))
    arguments["tokens"][arguments["tokens"] == AUDIOSPAN] = 11
    silent = model.embed_video(**arguments | {"audio_clips": None})
    torch.testing.assert_close(silent, model.embed_video(**arguments), rtol=1e-12, atol=1e-12)


def test_embed_video_of_padding_alone_and_of_no_tokens(model: MerlotReserve) -> None:
    arguments = video(model, 1, (2, 4))
    arguments["tokens"][:] = PAD
    assert (model.embed_video(**arguments) == 0).all()
    arguments |= {name: arguments[name][:, :0] for name in ("tokens", "subsegments")}
    assert model.embed_video(**arguments).shape == (2, 0, 64)


def test_embed_video_takes_bytes(model: MerlotReserve) -> None:
    arguments = video(model, 1, (2, 4))
    pixels = torch.randint(0, 256, arguments["images"].shape, dtype=torch.uint8)
    torch.testing.assert_close(
        model.embed_video(**arguments | {"images": pixels}),
        model.embed_video(**arguments | {"images": pixels.double() / 255}),
    )


def test_embed_text_spans_matches_the_restatement(model: MerlotReserve, weights: dict[str, np.ndarray]) -> None:
    spans = torch.randint(10, VOCABULARY, (5, 15))
    for i in range(5):
        spans[i, 15 - 3 * i :] = PAD
    ours = model.embed_text_spans(spans)
    plain = PlainModel({k: torch.from_numpy(v).double() for k, v in weights.items()}, SMALL, DataConfig())
    truth = plain.spans(spans)
    torch.testing.assert_close(ours, truth / truth.norm(dim=-1, keepdim=True), rtol=1e-4, atol=1e-6)
    assert_unit(ours, 1e-4)


def test_embed_audio_matches_the_restatement(model: MerlotReserve, weights: dict[str, np.ndarray]) -> None:
    clips = torch.randn(3, 60, 65, dtype=torch.float64)
    plain = PlainModel({k: torch.from_numpy(v).double() for k, v in weights.items()}, SMALL, DataConfig())
    truth = plain.audio(clips)[0]
    truth = truth / torch.sqrt((truth**2).sum(-1, keepdim=True) + 1e-5)
    torch.testing.assert_close(model.embed_audio(clips), truth, rtol=1e-9, atol=1e-9)


def test_embed_text_spans_does_not_depend_on_batch_and_padding(model: MerlotReserve) -> None:
    spans = torch.randint(10, VOCABULARY, (4, 6))
    together = model.embed_text_spans(torch.cat((spans, torch.full((4, 9), PAD)), 1))
    for i in range(4):
        torch.testing.assert_close(
            together[i : i + 1], model.embed_text_spans(spans[i : i + 1]), rtol=1e-11, atol=1e-11
        )


@pytest.mark.parametrize("shape", [(0, 15), (3, 0), (1, 1)])
def test_embed_text_spans_of_few_spans(model: MerlotReserve, shape: tuple[int, int]) -> None:
    vectors = model.embed_text_spans(torch.full(shape, 11))
    assert vectors.shape == (shape[0], 64)
    if shape[0]:
        assert_unit(vectors, 1e-4)


@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (0,), (2, 0, 3)])
def test_embed_audio_keeps_the_leading_axes(model: MerlotReserve, leading: tuple[int, ...]) -> None:
    clips = torch.randn(*leading, 60, 65, dtype=torch.float64)
    vectors = model.embed_audio(clips)
    assert vectors.shape == (*leading, 64)
    if vectors.numel():
        assert_unit(vectors, 1e-4)
        alone = model.embed_audio(clips.reshape(-1, 60, 65)[0])
        torch.testing.assert_close(vectors.reshape(-1, 64)[0], alone, rtol=1e-11, atol=1e-11)


def test_half_precision_takes_single_precision_inputs(weights: dict[str, np.ndarray], model: MerlotReserve) -> None:
    half = load_official(weights, SMALL).bfloat16().requires_grad_(False)
    arguments = video(model, 2, (2, 4))
    single = {name: value.float() if value.is_floating_point() else value for name, value in arguments.items()}
    assert_unit(half.embed_video(**single)[:, :-2], 0.02)
    assert_unit(half.embed_audio(single["audio_clips"]), 0.02)
    assert_unit(half.embed_text_spans(arguments["tokens"][:, :15]), 0.02)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": torch.zeros(2, 8, 16, 3)}, ValueError, r"images must be \[videos, segments, height, width, 3\]"),
        ({"images": torch.zeros(2, 1, 8, 16, 1)}, ValueError, r"images must be .*; got \(2, 1, 8, 16, 1\)"),
        ({"images": torch.zeros(2, 1, 8, 16, 3, dtype=torch.int64)}, TypeError, r"images must be uint8 or floating"),
        ({"images": torch.zeros(2, 0, 8, 16, 3)}, ValueError, "images must show 1 to 8 segments; got 0"),
        ({"images": torch.zeros(2, 9, 8, 16, 3)}, ValueError, "images must show 1 to 8 segments; got 9"),
        ({"images": torch.zeros(2, 1, 8, 20, 3)}, ValueError, "multiples of 8 pixels; got 8 x 20"),
        ({"images": torch.zeros(2, 1, 0, 16, 3)}, ValueError, "multiples of 8 pixels; got 0 x 16"),
        ({"images": torch.zeros(3, 1, 8, 16, 3)}, ValueError, r"tokens and subsegments must both be \[3, L\]"),
        ({"subsegments": torch.zeros(2, 7, dtype=torch.int64)}, ValueError, "tokens and subsegments must both be"),
        ({"tokens": torch.zeros(2, 19)}, TypeError, "tokens must be whole numbers; got torch.float32"),
        ({"tokens": torch.full((2, 19), VOCABULARY)}, ValueError, r"tokens must be token ids in \[0, 50\)"),
        ({"tokens": torch.full((2, 19), -1)}, ValueError, r"tokens must be token ids in .*; got -1 to -1"),
        ({"subsegments": torch.zeros(2, 19)}, TypeError, "subsegments must be whole numbers; got torch.float32"),
        ({"subsegments": torch.full((2, 19), 3)}, ValueError, r"subsegments must be in \[0, 3\) for 1 segments"),
        ({"subsegments": torch.full((2, 19), -2)}, ValueError, r"subsegments must be in .*, or -1; got -2 to -2"),
        ({"subsegments": torch.full((2, 19), -1)}, ValueError, "subsegments must not be -1 where tokens are AUDIOSPAN"),
        ({"audio_clips": None}, ValueError, "audio_clips must not be None: tokens contain AUDIOSPAN"),
        ({"audio_clips": torch.zeros(2, 3, 60, 64)}, ValueError, r"audio_clips must be \[..., 60, 65\]"),
        ({"audio_clips": torch.zeros(2, 4, 60, 65)}, ValueError, r"audio_clips must be \[2, 3, ...\] for 1 segments"),
        ({"audio_clips": torch.zeros(2, 3, 60, 65, dtype=torch.int32)}, TypeError, "audio_clips must be floating"),
    ],
)
def test_embed_video_names_an_invalid_argument(
    model: MerlotReserve, changes: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.embed_video(**video(model, 1, (2, 4)) | changes)


@pytest.mark.parametrize(
    ("spans", "error", "message"),
    [
        (torch.zeros(2, 16, dtype=torch.int64), ValueError, r"spans must be \[n, length\] with length at most 15"),
        (torch.zeros(15, dtype=torch.int64), ValueError, r"spans must be \[n, length\]"),
        (torch.zeros(2, 15), TypeError, "spans must be whole numbers"),
        (torch.full((2, 15), VOCABULARY), ValueError, r"spans must be token ids in \[0, 50\)"),
    ],
)
def test_embed_text_spans_names_an_invalid_argument(
    model: MerlotReserve, spans: torch.Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.embed_text_spans(spans)


@pytest.mark.parametrize("shape", [(65,), (59, 65), (2, 60, 64)])
def test_embed_audio_names_an_invalid_argument(model: MerlotReserve, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"clips must be \[..., 60, 65\]"):
        model.embed_audio(torch.zeros(shape))


SHALLOW = {"vocab_size": VOCABULARY, **{f"{part}_num_layers": 1 for part in ("vit", "audio", "span", "joint")}}


@pytest.fixture(scope="module", params=["base", "large"])
def shallow(request: pytest.FixtureRequest) -> MerlotReserve:
    config = {"base": BASE, "large": LARGE}[request.param]
    model = empty_model(lambda: MerlotReserve(replace(config, **SHALLOW))).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # A plain normal: the truncated one of the initialisation takes seconds at these widths.
            parameter.normal_(mean=float(name.endswith("norm.weight")), std=0.02, generator=generator)
    return model.requires_grad_(False)


def assert_embeds(model: MerlotReserve, segments: int, grid: tuple[int, int]) -> None:
    hidden = model.config.hidden_size
    arguments = video(model, segments, grid)
    vectors = model.embed_video(**arguments)
    assert vectors.shape == (2, 19, hidden)
    assert_unit(vectors[:, :-2], 1e-3)
    assert (vectors[:, -2:] == 0).all()
    alone = model.embed_video(**{name: value[1:] for name, value in arguments.items()})
    torch.testing.assert_close(vectors[1:], alone, rtol=0, atol=2e-5)
    sounds, spans = model.embed_audio(arguments["audio_clips"]), model.embed_text_spans(arguments["tokens"][:, :15])
    assert sounds.shape == (2, 3 * segments, hidden)
    assert spans.shape == (2, hidden)
    assert_unit(sounds, 1e-3)
    assert_unit(spans, 1e-3)


@pytest.mark.parametrize(("segments", "grid"), [(1, (18, 32)), (2, (24, 24))])
def test_widths_of_base_and_large(shallow: MerlotReserve, segments: int, grid: tuple[int, int]) -> None:
    assert_embeds(shallow, segments, grid)


@pytest.mark.parametrize(
    ("config", "segments", "grid"),
    [
        pytest.param(BASE, 1, (18, 32), id="base, one segment"),
        pytest.param(BASE, 8, (24, 24), id="base, eight segments"),
        # Eight segments of large take ten minutes on two cores.
        pytest.param(LARGE, 1, (18, 32), id="large, one segment"),
    ],
)
@pytest.mark.slow
def test_whole_base_and_large(config: ModelConfig, segments: int, grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    assert_embeds(MerlotReserve(config).requires_grad_(False), segments, grid)


@pytest.mark.parametrize("name", ["images", "audio_clips", "tokens", "subsegments"])
def test_embed_video_requires_arrays(model: MerlotReserve, name: str) -> None:
    arguments = video(model, 1, (2, 4))
    with pytest.raises(TypeError, match=f"{name} must be a torch.Tensor or a numpy array; got list"):
        model.embed_video(**arguments | {name: arguments[name].tolist()})


def test_embed_text_spans_and_embed_audio_require_arrays(model: MerlotReserve) -> None:
    with pytest.raises(TypeError, match=r"spans must be a torch.Tensor or a numpy array; got list"):
        model.embed_text_spans([[1, 2]])
    with pytest.raises(TypeError, match=r"clips must hold numbers that torch has; got <U1"):
        model.embed_audio(np.full((1, 60, 65), "a"))


def test_numpy_arrays_give_what_tensors_give(model: MerlotReserve) -> None:
    arguments = video(model, 2, (2, 4))
    arrays = {name: value.numpy() for name, value in arguments.items()}
    arrays["tokens"].flags.writeable = False
    with torch.no_grad():
        assert torch.equal(model.embed_video(**arrays), model.embed_video(**arguments))
        clips, spans = arguments["audio_clips"], arguments["tokens"][:, :15]
        assert torch.equal(model.embed_audio(arrays["audio_clips"][:, ::-1]), model.embed_audio(clips.flip(1)))
        assert torch.equal(model.embed_text_spans(spans.numpy()), model.embed_text_spans(spans))


def test_words_of_no_subsegment_have_the_position_of_the_last_segment(model: MerlotReserve) -> None:
    arguments = video(model, 8, (2, 4))
    where = arguments["tokens"] != AUDIOSPAN
    last = torch.where(where, 21, arguments["subsegments"])
    with torch.no_grad():
        expected = model.embed_video(**arguments | {"subsegments": last})
        found = model.embed_video(**arguments | {"subsegments": torch.where(where, -1, last)})
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_sound_that_no_token_looks_at_is_not_encoded(model: MerlotReserve, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = video(model, 1, (2, 4))
    arguments["tokens"][arguments["tokens"] == AUDIOSPAN] = 40
    monkeypatch.setattr(model.audio_encoder, "forward", None)
    with torch.no_grad():
        without = model.embed_video(**arguments | {"audio_clips": None})
        assert torch.equal(model.embed_video(**arguments), without)


def test_forward_runs_every_encoder(model: MerlotReserve) -> None:
    examples = RandomExamples(2, Config().data, SMALL)
    batch = collate([examples[0, index] for index in range(2)], Config().data, SMALL)
    with torch.no_grad():
        out = model(batch)
        frames = model.vision_encoder(batch.images.flatten(0, 1))
        sounds = model.audio_encoder(batch.audio_clips.flatten(0, 1))
        joint = model.encode_joint(batch.joint, frames.pooled, sounds.pooled)
        spans = model.encode_spans(batch.spans)
    assert torch.equal(out.frames.cls, frames.cls)
    assert torch.equal(out.sounds.cls, sounds.cls)
    assert torch.equal(out.joint, joint)
    assert torch.equal(out.spans, spans)


def test_forward_looks_up_all_tokens_at_once(model: MerlotReserve) -> None:
    """A second lookup would have another gradient as large as the vocabulary."""
    examples = RandomExamples(1, Config().data, SMALL)
    lookups = []
    handle = model.token_embedding.register_forward_hook(lambda *_: lookups.append(1))
    model(collate([examples[0, 0]], Config().data, SMALL))
    handle.remove()
    assert len(lookups) == 1


def test_forward_without_sound_and_spans(model: MerlotReserve) -> None:
    ids = np.full((2, 3), 11)
    stream = JointStream("text", ids, 0 * ids, 0 * ids, np.arange(2), np.arange(2)[:, None])
    joint = pack_joint([stream], subsegments=3, audio_tokens=6, pooled_grid=SMALL.pooled_grid)
    out = model(ModelInputs(torch.zeros(2, *SMALL.image_size, 3, dtype=torch.uint8), None, joint, None))
    assert (out.sounds, out.spans) == (None, None)
    assert out.joint.shape == (2 * (3 + 2), 64)
