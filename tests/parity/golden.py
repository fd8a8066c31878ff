"""The reference's recorded tensors as arguments of this project's functions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from reserve.batch.streams import TokenStream
from reserve.checkpoint.official import load_official
from reserve.config.official import load_official_config
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.batch import BatchChoices, PretrainBatch, pack_batch
from reserve.tasks.pretrain.text import MaskedText

STREAMS = ("text2audio", "audio2text", "audio_text_matching", "random_text")


class Golden:
    """One folder of golden tensors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        config = load_official_config(folder / "tiny.yaml")
        self.data = config.data
        self.model = replace(config.model, vocab_size=2048)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.folder / name) as archive:
            return dict(archive)

    def load_model(self) -> MerlotReserve:
        return load_official(self.folder / "tiny.ckpt.msgpack", self.model)

    def batch(self) -> PretrainBatch:
        """The batch of `tiny` with the reference's random choices."""
        return self.make_batch(self.arrays("tiny.batch.npz"), self.arrays("tiny.forward.npz"))

    def make_batch(self, raw: dict[str, np.ndarray], recorded: dict[str, np.ndarray]) -> PretrainBatch:
        data, model = self.data, self.model
        examples = len(raw["images"])
        texts = [
            MaskedText(
                *(
                    TokenStream(raw[name][i], raw[f"{name}/audio_ptr"][i], raw[f"{name}/text_ptr"][i])
                    for name in STREAMS
                ),
                raw["text_spans"][i],
            )
            for i in range(examples)
        ]
        grouped = (examples, data.num_segment_groups, data.segments_per_group)
        choices = BatchChoices(
            text2audio_source=recorded["activations/aug_video_src_idx/1"].reshape(grouped).astype(np.int64),
            audio2text_source=recorded["activations/aug_video_src_idx/0"].reshape(grouped).astype(np.int64),
            kept_spans=recorded["activations/span_best_idxs"].astype(np.int64),
        )
        h, w = model.output_grid
        patches = torch.from_numpy(raw["images"]).view(examples, data.num_segments, h, w, 16, 16, 3)
        images = patches.transpose(3, 4).reshape(examples, data.num_segments, *model.image_size, 3)
        clips = torch.from_numpy(raw["audio_clips"]).view(examples, data.num_subsegments, model.audio_seq_length, 65)
        return pack_batch(images, clips, texts, choices, data, model)
