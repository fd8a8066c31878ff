"""Masking: turns the words of an example into four token streams and the text spans to predict (SPEC 7)."""

from reserve.tasks.pretrain.masking.choices import MaskingChoices, draw_masking_choices
from reserve.tasks.pretrain.masking.masked_text import apply_masking, mask_text
from reserve.tasks.pretrain.masking.subsegments import draw_subsegment_starts, inference_subsegment_starts

__all__ = [
    "MaskingChoices",
    "apply_masking",
    "draw_masking_choices",
    "draw_subsegment_starts",
    "inference_subsegment_starts",
    "mask_text",
]
