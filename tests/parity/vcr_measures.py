"""VCR against the reference's recorded numbers: texts, boxes, sequences, logits, gradients and steps (SPEC 10.7)."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from reserve.checkpoint.official import load_official
from reserve.checkpoint.official_layout import Entry, parameter_entries
from reserve.data.float_images import stored_size
from reserve.model.finetuned import FinetunedReserve
from reserve.tasks.data_folder import Record
from reserve.tasks.decay import parameter_groups
from reserve.tasks.finetuning import finetuning_optimizer
from reserve.tasks.vcr.annotations import Objects, Question, read_question
from reserve.tasks.vcr.boxes import DrawnBox, colour_of, draw_boxes, drawn_boxes, mirrored
from reserve.tasks.vcr.dataset import VcrBatch, VcrExample, choice_sequences, collate
from reserve.tasks.vcr.task import vcr_logits
from reserve.tasks.vcr.text import mentions_a_side, object_names, rationale_query, sentence
from reserve.train.optimizer import make_optimizer, zero_missing_gradients
from reserve.train.step import set_learning_rate
from tests.parity.figures import Figure, relative
from tests.parity.golden import Golden

PROBLEMS = ("qa", "qar")
ZERO_GRADIENTS = ("seq_attnpool/key/bias", "joint_transformer/final_ln/bias", "contrastive_scales", "/cls_proj/")
"""Zero, or zero but for rounding: a constant added to all scores of a query, or to all choices, changes nothing, and
nothing reads the frames' CLS."""


def texts(golden: Golden) -> list[Figure]:
    """Strings, sizes, boxes and colours of the recorded annotations."""
    recorded = json.loads((golden.folder / "vcr_text.json").read_text("utf-8"))
    differing = {"strings": 0, "boxes": 0, "boxes mirrored or not": 0}
    for case in recorded["cases"]:
        question, objects = _annotation(case)
        differing["strings"] += sum(
            strings != expected for strings, expected in zip(_strings(question, objects), _expected(case), strict=True)
        )
        height, width = stored_size(case["metadata"]["height"], case["metadata"]["width"])
        assert [width, height] == case["resized"]
        boxes = drawn_boxes(question, objects, width)
        differing["boxes"] += not _same_boxes(boxes, case["drawn"])
        if case["drawn_mirrored"] is not None:
            names = object_names(objects.names)
            stays = mentions_a_side(sentence(text, names) for text in question.texts)
            turned = boxes if stays else mirrored(boxes, width)
            differing["boxes"] += not _same_boxes(turned, case["drawn_mirrored"])
            differing["boxes mirrored or not"] += case["boxes_mirrored"] == stays
    sizes = [tuple(case["resized"]) != stored_size(*case["size"][::-1])[::-1] for case in recorded["resizes"]]
    figures = [Figure(f"VCR {what}", "cases that differ", float(count), 0) for what, count in differing.items()]
    return [*figures, Figure("sizes of stored pictures", "cases that differ", float(sum(sizes)), 0), *_drawing(golden)]


def _annotation(case: dict[str, Any]) -> tuple[Question, Objects]:
    record = Record({"img_fn": "picture.jpg", "metadata_fn": "picture.json"} | case["item"], case["case"])
    metadata = case["metadata"]
    boxes = tuple(tuple(box[:4]) for box in metadata["boxes"])
    return read_question(record), Objects(tuple(metadata["names"]), boxes, metadata["width"])


def _strings(question: Question, objects: Objects) -> list[tuple[Any, ...]]:
    names = object_names(objects.names)
    query, *choices = (sentence(text, names) for text in question.texts)
    given = range(4) if question.answer_label is None else [question.answer_label]
    return [(query, choices[:4], rationale_query(query, choices[label]), choices[4:]) for label in given]


def _expected(case: dict[str, Any]) -> list[tuple[Any, ...]]:
    fields = ("qa_query", "qa_choices", "qar_query", "qar_choices")
    return [tuple(example[name] for name in fields) for example in case["examples"]]


def _same_boxes(ours: list[DrawnBox], theirs: list[dict[str, Any]]) -> bool:
    """The recording has four decimals."""
    return len(ours) == len(theirs) and all(
        np.allclose(box.rectangle, other["rectangle"], rtol=0, atol=6e-5)
        and [*box.colour, 32] == other["fill"]
        and [*box.colour, 255] == other["outline"]
        for box, other in zip(ours, theirs, strict=True)
    )


def _drawing(golden: Golden) -> list[Figure]:
    arrays = golden.arrays("vcr_draw.npz")
    image = arrays["image"]
    scale = image.shape[1] / float(arrays["metadata_width"])
    boxes = [
        DrawnBox(tuple(box * scale), colour_of(str(name)))
        for box, name in zip(arrays["boxes"], arrays["names"], strict=False)
    ]
    ours = {"drawn": boxes, "drawn_mirrored": mirrored(boxes, image.shape[1])}
    return [
        Figure(f"picture {name}", "pixels that differ", float((draw_boxes(image, b) != arrays[name]).sum()), 0)
        for name, b in ours.items()
    ]


def load_model(golden: Golden) -> FinetunedReserve:
    sizes = replace(
        golden.model, hidden_size=128, vit_num_layers=2, joint_num_layers=2, audio_num_layers=1, span_num_layers=1
    )
    model = load_official(golden.folder / "vcr.ckpt.msgpack", replace(sizes, output_grid=(4, 6)))
    assert isinstance(model, FinetunedReserve)
    return model


def sequences(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The recorded parts put together: int32 [3, 2, 4, 44]."""
    length = arrays["answers"].shape[-1]

    def problem(example: int, kind: str) -> np.ndarray:
        part = f"parts/{example}/{kind}"
        start = [*arrays[f"{part}_query"], *arrays[f"sep_{kind}"]]
        return choice_sequences(start, [arrays[f"{part}_choice_{choice}"] for choice in range(4)], length)

    return np.stack([[problem(example, kind) for kind in PROBLEMS] for example in range(len(arrays["answers"]))])


def batch(arrays: dict[str, np.ndarray], model: FinetunedReserve) -> VcrBatch:
    ids = sequences(arrays)
    h, w = model.config.output_grid
    images = arrays["image"].reshape(-1, h, w, 16, 16, 3).swapaxes(2, 3).reshape(-1, h * 16, w * 16, 3)
    labels = arrays["labels"].astype(np.int64)
    examples = [VcrExample(*parts) for parts in zip(images, ids, labels, strict=True)]
    return collate(examples, model.config)


@torch.no_grad()
def logits(golden: Golden) -> list[Figure]:
    arrays, model = golden.arrays("vcr.npz"), load_model(golden)
    differing = float((sequences(arrays) != arrays["answers"]).sum())
    figures = [Figure("VCR sequences", "tokens that differ", differing, 0)]
    for setting, computed in (("f32", model), ("bf16_params", _rounded(model))):
        ours = vcr_logits(computed, batch(arrays, model))
        labels = torch.from_numpy(arrays["labels"]).long()
        loss = F.cross_entropy(ours.flatten(0, 1), labels.flatten())
        right = (ours.argmax(-1) == labels).float().mean()
        for name, value in (("logits", ours), ("logprobs", ours.log_softmax(-1))):
            error = relative(value.numpy(), arrays[f"{setting}/{name}"])
            figures.append(Figure(f"VCR {name}, {setting}", "relative error", error, 1e-5))
        for name, value in (("loss", loss), ("is_right", right)):
            error = abs(float(value) - float(arrays[f"{setting}/{name}"]))
            figures.append(Figure(f"VCR {name}, {setting}", "absolute error", error, 1e-6))
    return figures


def gradients(golden: Golden) -> list[Figure]:
    arrays, model = golden.arrays("vcr.npz"), load_model(golden)
    _backward(model, batch(arrays, model))
    theirs, figures = golden.arrays("vcr.grads.npz"), []
    parameters = dict(model.named_parameters())
    for entry in parameter_entries(model.config):
        gradient = parameters[entry.torch].grad
        ours = np.zeros(entry.shape) if gradient is None else entry.to_flax(gradient)
        if _is_zero(entry):
            worst = float(np.abs(ours).max())
            figures.append(Figure(entry.flax, "largest magnitude, zero but for rounding", worst, 1e-7))
        else:
            figures.append(Figure(entry.flax, "relative error", relative(ours, theirs[entry.flax]), 1e-4))
    return figures


def optimizer(golden: Golden, setting: str) -> list[Figure]:
    """Three finetuning steps, with the weights and gradients as they are or rounded to bfloat16."""
    arrays, model = golden.arrays("vcr.npz"), load_model(golden)
    recorded = golden.arrays("vcr.optimizer.npz")
    theirs = {k.removeprefix(f"{setting}/"): v for k, v in recorded.items() if k.startswith(f"{setting}/")}
    config = replace(
        finetuning_optimizer(float(recorded["learning_rate"])),
        num_warmup_steps=int(recorded["num_warmup_steps"]),
        num_train_steps=int(recorded["num_train_steps"]),
    )
    groups = parameter_groups(model, config.weight_decay_rate, finetuning=True)
    adam = make_optimizer(model, groups, config, decay_to_start=True)
    parameters = dict(model.named_parameters())
    entries = [e for e in parameter_entries(model.config) if f"step_2/{e.flax}" in theirs]
    inputs, figures = batch(arrays, model), []
    for step in range(3):
        set_learning_rate(adam, step, config, finetuning=True)
        adam.zero_grad()
        loss = _backward(model, inputs, rounded=setting == "bf16_params")
        zero_missing_gradients(adam)
        adam.step()
        error = abs(loss - float(theirs["losses"][step]))
        figures.append(Figure(f"loss before step {step + 1}", "absolute error", error, 1e-5))
        if step:
            worst = max(
                relative(
                    _recorded_rows(e, e.to_flax(parameters[e.torch]), recorded), theirs[f"step_{step + 1}/{e.flax}"]
                )
                for e in entries
            )
            figures.append(
                Figure(f"parameters after step {step + 1}", "largest relative error of a parameter", worst, 2e-5)
            )
        else:
            worst = max(
                relative(_recorded_rows(e, _gradient(e, parameters), recorded), theirs[f"grads/{e.flax}"])
                for e in entries
                # Its recorded gradient is a sum that was rounded frame by frame.
                if not _is_zero(e) and not (setting == "bf16_params" and e.flax == "vision_encoder/transformer/cls")
            )
            bound = 1e-4 if setting == "f32" else 2e-3  # half of bfloat16's last place, where rounding goes elsewhere
            figures.append(Figure("gradients of step 1", "largest relative error of a parameter", worst, bound))
    for name, moment in (("mu_bits", "m"), ("nu_bits", "v")):
        equal = np.concatenate(
            [
                (
                    _stored_bits(e, adam.state[parameters[e.torch]][moment], recorded) == theirs[f"{name}/{e.flax}"]
                ).ravel()
                for e in entries
                if not _is_zero(e)
            ]
        )
        what = f"bits of {moment} after step 3"
        figures.append(Figure(what, "fraction equal", float(equal.mean()), 0.97, at_least=True))
    return figures


def _is_zero(entry: Entry) -> bool:
    return any(name in entry.flax for name in ZERO_GRADIENTS)


def _gradient(entry: Entry, parameters: dict[str, torch.nn.Parameter]) -> np.ndarray:
    gradient = parameters[entry.torch].grad
    assert gradient is not None
    return entry.to_flax(gradient)


def _stored_bits(entry: Entry, moment: torch.Tensor, recorded: dict[str, np.ndarray]) -> np.ndarray:
    """A bfloat16 moment as uint16 in the official layout, the recorded rows of it."""
    bits = (moment.T if entry.kernel else moment).contiguous().reshape(entry.shape).view(torch.int16).numpy()
    return _recorded_rows(entry, bits.view(np.uint16), recorded)


def _recorded_rows(entry: Entry, array: np.ndarray, recorded: dict[str, np.ndarray]) -> np.ndarray:
    """Of the token embedding only some rows are recorded."""
    return array[recorded["token_rows"]] if entry.torch == "token_embedding.weight" else array


def _backward(model: FinetunedReserve, inputs: VcrBatch, *, rounded: bool = False) -> float:
    """Sets the gradients, of weights rounded to bfloat16 and rounded themselves if asked; returns the loss."""
    computed = _rounded(model) if rounded else model
    loss = F.cross_entropy(vcr_logits(computed, inputs).flatten(0, 1), inputs.labels.flatten())
    loss.backward()
    if rounded:
        for parameter, source in zip(model.parameters(), computed.parameters(), strict=True):
            parameter.grad = None if source.grad is None else source.grad.bfloat16().float()
    return float(loss.detach())


def _rounded(model: FinetunedReserve) -> FinetunedReserve:
    """A copy with the weights rounded to bfloat16, still in float32."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.copy_(parameter.bfloat16().float())
    return copied
