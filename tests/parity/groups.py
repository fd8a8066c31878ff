"""The groups of figures that the tests check and docs/parity.md shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.parity import measures, tvqa_measures, vcr_measures, zero_shot_measures
from tests.parity.embedding_measures import embeddings
from tests.parity.figures import Figure
from tests.parity.golden import Golden
from tests.parity.masking_measures import masking

GROUPS: dict[str, Callable[[Golden], list[Figure]]] = {
    "Official checkpoint": measures.checkpoint,
    "Forward pass": measures.forward,
    "Contrast vectors and losses": measures.contrast,
    "Gradients": measures.gradients,
    "Optimiser, bfloat16 moments": partial(measures.optimizer, setting="bf16_adam"),
    "Optimiser, bfloat16 moments, gradients in float64": partial(
        measures.optimizer, setting="bf16_adam", exact_gradients=True
    ),
    "Optimiser, float32 moments": partial(measures.optimizer, setting="fp32_adam"),
    "Schedules": measures.schedules,
    "Two devices": measures.two_devices,
    "Log-mel": measures.log_mel,
    "Masking": masking,
    "Embeddings": embeddings,
    "VCR, texts and boxes": vcr_measures.texts,
    "VCR, logits": vcr_measures.logits,
    "VCR, gradients": vcr_measures.gradients,
    "VCR, finetuning steps": partial(vcr_measures.optimizer, setting="f32"),
    "VCR, finetuning steps, weights and gradients in bfloat16": partial(vcr_measures.optimizer, setting="bf16_params"),
    "TVQA, logits": tvqa_measures.logits,
    "TVQA, gradients": tvqa_measures.gradients,
    "Zero-shot, pictures and sounds": zero_shot_measures.reading,
    "Zero-shot, vectors and logits": zero_shot_measures.answering,
}
