"""TVQA against the reference's recorded numbers: sequences, logits, losses and gradients (SPEC 10.8)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from reserve.checkpoint.official import load_official
from reserve.checkpoint.official_layout import parameter_entries
from reserve.config import FinetunedConfig
from reserve.model.finetuned import FinetunedReserve
from reserve.tasks.tvqa.batch import Example, answer_loss, answer_probabilities, answer_scores, collate
from reserve.tasks.tvqa.sequences import audio_sequences, text_sequences
from tests.parity.figures import Figure, relative
from tests.parity.golden import Golden

SIZES = FinetunedConfig(
    hidden_size=128, vocab_size=2048, vit_num_layers=2, output_grid=(4, 6), audio_num_layers=1, joint_num_layers=2
)
ZERO_GRADIENTS = ("joint_transformer/final_ln/bias", "seq_attnpool/key/bias", "cls_proj")
"""Zero, or zero but for rounding: see vcr_measures."""


def load_model(folder: Path) -> FinetunedReserve:
    model = load_official(folder / "tvqa.ckpt.msgpack", SIZES)
    assert isinstance(model, FinetunedReserve)
    return model


def examples(arrays: dict[str, np.ndarray]) -> list[Example]:
    """The recorded pieces put together."""
    made = []
    for index in range(len(arrays["labels"])):
        parts = {k.rpartition("/")[2]: v.tolist() for k, v in arrays.items() if k.startswith(f"parts/{index}/")}
        options = [[*parts["query"], *arrays["sep"].tolist(), *parts[f"choice_{i}"]] for i in range(5)]
        patches = arrays["images"][index].reshape(7, *SIZES.output_grid, 16, 16, 3)
        length = arrays["audio_seqs"].shape[2]
        made.append(
            Example(
                images=patches.transpose(0, 1, 3, 2, 4, 5).reshape(7, *SIZES.image_size, 3),
                audio_clips=arrays["audio_clips"][index],
                audio=audio_sequences(options, length),
                text=text_sequences(options, [parts[f"sub_{i}"] for i in range(7)], length),
                label=int(arrays["labels"][index]),
            )
        )
    return made


def logits(golden: Golden) -> list[Figure]:
    arrays, model = golden.arrays("tvqa.npz"), load_model(golden.folder)
    made = examples(arrays)
    differing = 0
    for index, example in enumerate(made):
        for name, sequences in (("audio_seqs", example.audio), ("textonly_seqs", example.text)):
            both = np.stack((sequences.ids, sequences.segments), axis=-1)
            differing += int((both != arrays[name][index]).sum())
    figures = [Figure("TVQA sequences", "tokens and segments that differ", float(differing), 0)]
    batch = collate(made, SIZES)
    with torch.no_grad():
        scores = answer_scores(model, batch)
    for name, ours in zip(("audio", "text"), scores, strict=True):
        for what, value in (("logits", ours), ("logprobs", ours.log_softmax(-1))):
            error = relative(value.numpy(), arrays[f"{what}_{name}"])
            figures.append(Figure(f"TVQA {what}, {name}", "relative error", error, 1e-5))
    loss = answer_loss(scores, batch.labels)
    reported = {"loss": loss.mean} | {
        name.replace("accuracy", "is_right"): value for name, value in loss.metrics().items() if "joint" not in name
    }
    for name, value in reported.items():
        error = abs(float(value) - float(arrays[name]))
        figures.append(Figure(f"TVQA {name}", "absolute error", error, 1e-6))
    wrong = sum(
        (p.argmax(-1).numpy() != arrays[f"preds_{name}"]).sum() for name, p in answer_probabilities(scores).items()
    )
    return [*figures, Figure("TVQA predictions", "answers that differ", float(wrong), 0)]


def gradients(golden: Golden) -> list[Figure]:
    arrays, model = golden.arrays("tvqa.npz"), load_model(golden.folder)
    batch = collate(examples(arrays), SIZES)
    answer_loss(answer_scores(model, batch), batch.labels).mean.backward()
    parameters, figures = dict(model.named_parameters()), []
    for entry in parameter_entries(model.config):
        theirs = arrays.get(f"grads/{entry.flax}")
        if theirs is None:
            continue
        gradient = parameters[entry.torch].grad
        ours = np.zeros(entry.shape) if gradient is None else entry.to_flax(gradient)
        if entry.torch == "token_embedding.weight":
            ours = ours[arrays["token_rows"]]
        if any(name in entry.flax for name in ZERO_GRADIENTS):
            worst = float(np.abs(ours).max())
            figures.append(Figure(entry.flax, "largest magnitude, zero but for rounding", worst, 1e-7))
        else:
            figures.append(Figure(entry.flax, "relative error", relative(ours, theirs), 1e-4))
    return figures
