"""FLOPs counted from sizes are those that PyTorch counts while the model runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from reserve.model.flops import Workload, encoding_workload, transformer_workload
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.transformer import Transformer
from tests.helpers.tiny import tiny
from tests.helpers.tiny_steps import TINY_RUN, tiny_batch


def test_a_transformer_counts_as_pytorch_counts_it():
    lengths = torch.tensor([3, 0, 5])
    transformer = Transformer(128, 2, "reserve")
    x = torch.randn(8, 128, requires_grad=True)
    with FlopCounterMode(display=False) as mode:
        transformer(x, torch.tensor([0, 3, 3, 8], dtype=torch.int32), 5, torch.randn(8, 16)).sum().backward()
    assert transformer_workload(128, 2, lengths) == Workload(8, mode.get_total_flops())


@pytest.mark.parametrize("without", [(), ("audio_clips",), ("audio_clips", "spans")])
@pytest.mark.parametrize(
    "config", [TINY_RUN.model, tiny(vocab_size=50, audio_patch_size=5, hidden_size=128, span_num_layers=2)]
)
def test_the_encoders_count_as_pytorch_counts_them(config, without):
    torch.manual_seed(0)
    model = MerlotReserve(config)
    inputs = tiny_batch()
    inputs = replace(inputs, **dict.fromkeys(without))
    if "audio_clips" in without:
        joint = inputs.joint
        # Words in place of sounds.
        text = torch.cat((joint.text_ids, torch.full_like(joint.audio_index, 11)))
        inputs.joint = replace(joint, text_ids=text, audio_index=joint.audio_index[:0])
    with FlopCounterMode(display=False) as mode:
        joint, frames, sounds, spans = model(inputs)
        parts = [joint, frames.cls, spans, None if sounds is None else sounds.cls]
        sum(part.sum() for part in parts if part is not None).backward()
    work = encoding_workload(config, inputs)
    assert work.flops == mode.get_total_flops()


def test_tokens_are_those_of_the_encoders():
    batch, config = tiny_batch(), TINY_RUN.model
    frames, clips = 2 * 4, 2 * 4 * 3
    vision = frames * (1 + config.output_grid[0] * config.output_grid[1])
    audio = clips * (1 + config.audio_seq_length // config.audio_patch_size)
    expected = vision + audio + len(batch.spans.token_ids) + len(batch.joint.order)
    assert encoding_workload(config, batch).tokens == expected
