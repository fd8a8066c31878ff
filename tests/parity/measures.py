"""Distances from the reference: each function returns figures and their bounds."""

from __future__ import annotations

import copy
import json
import pickle
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from reserve.batch.packing import PackedSequences
from reserve.batch.streams import TokenStream
from reserve.batch.vocabulary import PAD
from reserve.checkpoint.official import read_official, save_official
from reserve.checkpoint.official_layout import parameter_entries
from reserve.config import DataConfig, ModelConfig
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.decay import parameter_groups
from reserve.tasks.pretrain.batch import SPAN_SOURCES, PretrainBatch, span_sources
from reserve.tasks.pretrain.dataset import audio_clips
from reserve.tasks.pretrain.masking import inference_subsegment_starts
from reserve.tasks.pretrain.objective import PretrainPairs, pretrain_loss, pretrain_pairs
from reserve.train.schedule import learning_rate_scale
from reserve_kernels import BF16AdamW, log_mel_spectrogram
from reserve_kernels.adamw.reference import decode_second_moment
from reserve_kernels.contrastive.reference import scaled
from reserve_kernels.log_mel.filters import mel_filterbank
from tests.helpers.ranks import run_ranks
from tests.parity.figures import Figure, largest, relative
from tests.parity.golden import STREAMS, Golden

# Zero up to rounding: softmax is invariant to a constant added to all scores of a query.
ZERO_GRADIENTS = ("seq_attnpool/key/bias",)


@torch.no_grad()
def checkpoint(golden: Golden) -> list[Figure]:
    path = golden.folder / "tiny.ckpt.msgpack"
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "again.msgpack"
        save_official(golden.load_model(), again, step=read_official(path).step)
        differing = float(again.read_bytes() != path.read_bytes())
    return [Figure("official checkpoint read and written back", "files that differ", differing, 0)]


@torch.no_grad()
def forward(golden: Golden) -> list[Figure]:
    model, batch = golden.load_model(), golden.batch()
    theirs = {k.removeprefix("activations/"): v for k, v in golden.arrays("tiny.forward.npz").items()}
    frames = model.vision_encoder(batch.images.flatten(0, 1))
    sounds = model.audio_encoder(batch.audio_clips.flatten(0, 1))
    figures = []
    for name, encoded in [("vision_encoder", frames), ("audio_encoder", sounds)]:
        for part, ours in [("cls", encoded.cls), ("seq", encoded.seq), ("seq_attnpool", encoded.pooled)]:
            figures.append((f"{name}/{part}", ours.numpy(), theirs[f"{name}/{part}"]))
    figures.append(("span_encoder", model.encode_spans(batch.spans).numpy(), theirs["span_encoder"]))
    raw = golden.arrays("tiny.batch.npz")
    for name in (*STREAMS, "text_spans"):
        ids = raw[name].reshape(-1, raw[name].shape[-1])
        embedded = model.token_embedding(torch.from_numpy(ids).long()).numpy()
        figures.append((f"token embeddings, {name}", embedded[ids != PAD], theirs[f"txt_embs/{name}"][ids != PAD]))
    inputs = model.joint_inputs(batch.joint, frames.pooled, sounds.pooled).numpy()
    hidden = model.encode_joint(batch.joint, frames.pooled, sounds.pooled)
    outputs = model.head(hidden).numpy()
    start = 0
    every_row = _token_rows(batch.joint)
    for name, rows in sorted(every_row.items()):
        valid = rows >= 0
        length = rows.shape[1]
        stored = slice(start, start := start + len(rows))
        for what, ours, full in [
            ("joint input", inputs, theirs[f"mm_inputs/{name}/x"]),
            ("coordinates", batch.joint.coordinates.numpy(), theirs[f"mm_inputs/{name}/rotary_coords"]),
            ("joint_transformer", hidden.numpy(), theirs["joint_transformer/seq"][stored]),
            ("joint_enc", outputs, theirs["joint_enc"][stored]),
        ]:
            figures.append((f"{what}, {name}", ours[rows[valid]], full[:, :length][valid]))
    return [Figure(name, "relative error", relative(a, b), 1e-5) for name, a, b in figures] + [
        Figure(f"attention mask, {name}", "entries that differ", _mask_difference(batch.joint, rows, theirs, name), 0)
        for name, rows in sorted(every_row.items())
    ]


def _token_rows(packed: PackedSequences) -> dict[str, np.ndarray]:
    """For each stream the packed row of each token of its padded sequences: language, then images; -1 at padding."""
    order = packed.order.numpy()
    images = len(packed.image_index)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    # `order` has the images last: those of text2audio, then those of audio2text.
    image_rows = dict(zip(("text2audio", "audio2text"), np.split(place[len(order) - images :], 2), strict=True))
    return {
        name: np.concatenate((rows, image_rows[name].reshape(len(rows), -1)), axis=1) if name in image_rows else rows
        for name, rows in packed.rows.items()
    }


def _mask_difference(packed: PackedSequences, rows: np.ndarray, theirs: dict[str, np.ndarray], name: str) -> float:
    """Compares the packed groups, in which tokens attend to each other, with the mask of the padded sequences."""
    group = np.searchsorted(packed.cu_seqlens.numpy(), rows, side="right")
    ours = (group[:, :, None] == group[:, None]) & (rows >= 0)[:, :, None] & (rows >= 0)[:, None]
    return float((ours != theirs[f"mm_inputs/{name}/attention_mask"]).sum())


@torch.no_grad()
def contrast(golden: Golden) -> list[Figure]:
    model, batch = golden.load_model(), golden.batch()
    theirs, raw = golden.arrays("tiny.forward.npz"), golden.arrays("tiny.batch.npz")
    pairs = pretrain_pairs(model, batch)
    figures = _contrast_figures(pairs, model.contrastive_scales, theirs)
    differing = (batch.targets.span_source.numpy() != theirs["contrast/stuff_to_span/_sources"]).sum()
    figures.append(Figure("stuff_to_span/_sources", "entries that differ", float(differing), 0))
    indices = torch.cat((batch.targets.audio_index.view(2, -1), batch.targets.audio_extra.view(2, -1)), 1).numpy()
    expected = theirs["activations/audio_target_idxs"] + np.arange(2)[:, None] * golden.data.num_subsegments
    figures.append(Figure("audio targets", "entries that differ", float((indices != expected).sum()), 0))
    streams = {
        name: TokenStream(*(raw[name + part] for part in ("", "/audio_ptr", "/text_ptr"))) for name in SPAN_SOURCES
    }
    sources = span_sources(streams, golden.data.num_text_spans)
    differing = (sources != theirs["activations/t2sp_src_all"]).sum()
    figures.append(Figure("stream of every span", "entries that differ", float(differing), 0))
    loss = pretrain_loss(pairs, model.contrastive_scales, batch.targets.span_source)
    return figures + _loss_figures(loss, theirs)


def _contrast_figures(
    pairs: PretrainPairs, scales: torch.Tensor, theirs: dict, device: int | None = None
) -> list[Figure]:
    figures = []
    for (name, problem), scale in zip(pairs._asdict().items(), scales, strict=True):
        for part, vectors in problem._asdict().items():
            if vectors is not None:
                expected = theirs[f"contrast/{name}/{part}"]
                expected = expected if device is None else expected[device]
                ours = scaled(vectors, scale).detach().numpy()
                figures.append(Figure(f"{name}/{part}", "relative error", relative(ours, expected), 1e-5))
    return figures


def _loss_figures(loss, theirs: dict, device: int | None = None) -> list[Figure]:
    named = {"loss": loss.total}
    named |= {f"loss_info/{name}": value for name, value in loss.parts.items()}
    named |= {f"loss_info/_stuff_to_span_from_{name}": value for name, value in loss.by_source.items()}
    pick = (lambda a: a) if device is None else (lambda a: a[device])
    return [
        Figure(name, "absolute error", abs(float(value.detach()) - float(pick(theirs[name]))), 1e-5)
        for name, value in named.items()
    ]


def gradients(golden: Golden) -> list[Figure]:
    model, batch = golden.load_model(), golden.batch()
    loss = pretrain_loss(pretrain_pairs(model, batch), model.contrastive_scales, batch.targets.span_source)
    loss.total.backward()
    return _gradient_figures(model, golden.arrays("tiny.grads.npz"))


def _gradient_figures(model, theirs: dict[str, np.ndarray]) -> list[Figure]:
    parameters = dict(model.named_parameters())
    figures = []
    for entry in parameter_entries(model.config):
        if entry.flax not in theirs:
            continue
        ours = entry.to_flax(parameters[entry.torch].grad)
        if entry.flax.endswith(ZERO_GRADIENTS):
            figures.append(
                Figure(entry.flax, "largest magnitude, zero but for rounding", float(np.abs(ours).max()), 1e-7)
            )
        else:
            figures.append(Figure(entry.flax, "relative error", relative(ours, theirs[entry.flax]), 1e-4))
    return figures


def optimizer(golden: Golden, setting: str, *, exact_gradients: bool = False) -> list[Figure]:
    """Three steps of `bf16_adam` or `fp32_adam` on the golden batch.

    `exact_gradients` computes them in float64: remaining differences are due to the recording's rounding.
    """
    theirs = {k.removeprefix(f"{setting}/"): v for k, v in golden.arrays("tiny.optimizer.npz").items() if setting in k}
    model, batch = golden.load_model(), golden.batch()
    pretraining = setting == "bf16_adam"
    adam = BF16AdamW(
        parameter_groups(model, 0.1),
        lr=4e-4,
        moments="bfloat16" if pretraining else "float32",
        bias_correction=not pretraining,
    )
    parameters, entries = dict(model.named_parameters()), parameter_entries(model.config)
    figures = []
    seen_gradient = {entry.flax: np.zeros(entry.shape, bool) for entry in entries}
    for step in range(3):
        for group in adam.param_groups:
            group["lr"] = 4e-4 * learning_rate_scale(step, num_warmup_steps=2, num_train_steps=10)
        loss = _backward(model, batch, exact=exact_gradients)
        for entry in entries:
            seen_gradient[entry.flax] |= entry.to_flax(parameters[entry.torch].grad) != 0
        adam.step()
        figures.append(
            Figure(
                f"loss before step {step + 1}",
                "absolute error",
                abs(loss - float(theirs[f"loss_{step}"])),
                1e-5,
            )
        )
        worst = max(
            largest(entry.to_flax(parameters[entry.torch]), theirs[f"step_{step + 1}/{entry.flax}"])
            for entry in entries
            if f"step_{step + 1}/{entry.flax}" in theirs
        )
        figures.append(Figure(f"parameters after step {step + 1}", "largest absolute error", worst, 5e-6))
    if pretraining:
        for name, moment in [("mu_bits", "m"), ("nu_bits", "v")]:
            figures += _moment_figures(adam, parameters, entries, theirs, name, moment, seen_gradient)
    return figures


def _backward(model: MerlotReserve, batch: PretrainBatch, *, exact: bool) -> float:
    """Sets the gradients, computed in float32 or, `exact`, in float64; returns the loss."""
    computed = copy.deepcopy(model).double() if exact else model
    computed.zero_grad()
    pairs = pretrain_pairs(computed, batch)
    loss = pretrain_loss(pairs, computed.contrastive_scales, batch.targets.span_source).total
    loss.backward()
    for parameter, source in zip(model.parameters(), computed.parameters(), strict=True):
        parameter.grad = source.grad.float()
    return float(loss.detach())


def _moment_figures(adam, parameters, entries, theirs, name, moment, seen_gradient) -> list[Figure]:
    """How the stored bits differ, over the entries of the recorded parameters that have a gradient.

    Most of the entries that differ do so by one step. Where terms cancel, an entry is far smaller than its tensor, and
    the gradient's own float32 rounding moves it by several of its own small steps: those few are held to a bound
    relative to their tensor.
    """
    distances, excess = [], 0.0
    for entry in entries:
        if f"{name}/{entry.flax}" not in theirs:
            continue
        stored = adam.state[parameters[entry.torch]][moment]
        stored = (stored.T if entry.kernel else stored).contiguous().reshape(entry.shape)
        seen = seen_gradient[entry.flax]
        ours = stored.view(torch.int16).numpy().view(np.uint16)[seen]
        expected = theirs[f"{name}/{entry.flax}"].view(np.uint16)[seen]
        distance = np.abs(_step_number(ours, moment) - _step_number(expected, moment))
        distances.append(distance)
        ours_value, expected_value = _value(ours, moment), _value(expected, moment)
        scale = np.sqrt(np.mean(expected_value**2))
        beyond = np.abs(ours_value - expected_value)[distance > 1]
        excess = max(excess, float(beyond.max(initial=0) / scale))
    every = np.concatenate(distances)
    what = f"bits of {moment} after step 3"
    return [
        Figure(what, "fraction equal", float(np.mean(every == 0)), 0.97, at_least=True),
        Figure(what, "fraction equal or one step off", float(np.mean(every <= 1)), 0.998, at_least=True),
        Figure(what, "largest error of the others, relative to their tensor's root mean square", excess, 0.01),
    ]


def _value(bits: np.ndarray, moment: str) -> np.ndarray:
    """The value of stored bits; for the second moment its square root, which is on the scale of the gradient."""
    stored = torch.from_numpy(bits.view(np.int16).copy()).view(torch.bfloat16)
    value = stored.double() if moment == "m" else decode_second_moment(stored).double().sqrt()
    return value.numpy()


def _step_number(bits: np.ndarray, moment: str) -> np.ndarray:
    """Maps bit patterns to integers so that neighbouring stored values have neighbouring integers."""
    magnitude, negative = (bits & 0x7FFF).astype(np.int64), bits >> 15 == 1
    if moment == "v":
        # The sign is the last bit of precision: a negative lies between its magnitude and the next. Zero is negative.
        return np.where(magnitude == 0, 0, 2 * magnitude + negative)
    return np.where(negative, -magnitude, magnitude)


def schedules(golden: Golden) -> list[Figure]:
    figures = []
    for name, entry in json.loads((golden.folder / "schedule.json").read_text()).items():
        decay = "linear" if name == "finetune" else "cosine"
        worst = max(
            abs(
                learning_rate_scale(
                    int(step), num_warmup_steps=entry["warmup"], num_train_steps=entry["total"], decay=decay
                )
                - scale
            )
            for step, scale in entry["scale_at_step"].items()
        )
        figures.append(Figure(f"schedule {name}", "largest absolute error", worst, 1e-6))
    return figures


def log_mel(golden: Golden) -> list[Figure]:
    arrays = golden.arrays("log_mel.npz")
    figures = []
    for speed in (1, 2):
        ours = mel_filterbank(22050, 1536 * speed, 64, 20.0, 11025.0).numpy()
        error = relative(ours, arrays[f"mel_filters/speed{speed}"])
        figures.append(Figure(f"mel filters, speed {speed}", "relative error", error, 1e-6))
    for signal in sorted({name.split("/")[0] for name in arrays} - {"mel_filters"}):
        waveform = torch.from_numpy(arrays[f"{signal}/waveform"])
        for pad_mode in ("reflect", "constant"):
            speed = 2 if signal.endswith("_2x") else 1
            ours = log_mel_spectrogram(waveform, playback_speed=speed, pad_mode=pad_mode).numpy().T
            worst = largest(ours, arrays[f"{signal}/log_mel/{pad_mode}"])
            figures.append(Figure(f"log-mel of {signal}, {pad_mode}", "largest absolute error", worst, 2e-4))
            if f"{signal}/segments/{pad_mode}" in arrays:
                starts = inference_subsegment_starts(DataConfig())[:1]
                ours = audio_clips(ours.T[None], np.array([speed]), starts, ModelConfig().audio_seq_length)
                worst = largest(ours, arrays[f"{signal}/segments/{pad_mode}"])
                figures.append(Figure(f"subsegments of {signal}, {pad_mode}", "largest absolute error", worst, 2e-4))
    return figures


def _device(rank: int, golden_folder: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=2)
    try:
        golden = Golden(Path(golden_folder))
        recorded = golden.arrays("tiny.devices2.npz")
        raw = {k.removeprefix("batch/"): v[rank] for k, v in recorded.items() if k.startswith("batch/")}
        choices = {k: v[rank] for k, v in recorded.items() if k.startswith("activations/")}
        model, batch = golden.load_model(), golden.make_batch(raw, choices)
        replica = torch.nn.parallel.DistributedDataParallel(PairsModule(model))
        pairs = replica(batch)
        loss = pretrain_loss(pairs, model.contrastive_scales, batch.targets.span_source, group=dist.group.WORLD)
        figures = _contrast_figures(pairs, model.contrastive_scales, recorded, rank) + _loss_figures(
            loss, recorded, rank
        )
        loss.total.backward()
        for figure in figures:
            figure.what = f"device {rank}: {figure.what}"
        mean = {k.removeprefix("mean_grads/"): v for k, v in recorded.items() if k.startswith("mean_grads/")}
        figures += _gradient_figures(model, mean) if rank == 0 else []
        Path(out, str(rank)).write_bytes(pickle.dumps(figures))
    finally:
        dist.destroy_process_group()


class PairsModule(torch.nn.Module):
    """The forward pass as a module, so that DistributedDataParallel averages its gradients."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch) -> PretrainPairs:
        return pretrain_pairs(self.model, batch)


def two_devices(golden: Golden) -> list[Figure]:
    """Two processes over gloo."""
    with tempfile.TemporaryDirectory() as out:
        run_ranks(_device, str(golden.folder), out)
        figures = [figure for rank in range(2) for figure in pickle.loads(Path(out, str(rank)).read_bytes())]
    return sorted(figures, key=lambda f: f.what)
