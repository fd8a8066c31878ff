"""A plain restatement of MERLOT Reserve from SPEC 4 to 8: padded, dense, with boolean masks, in float64.

It works on weights in the official names and shapes and shares nothing with the project but the ids of the special
tokens and the configuration's dataclasses, so that a mistake has to be made twice to go unseen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from reserve.batch.streams import TokenStream
from reserve.batch.vocabulary import AUDIOSPAN, LTOVPOOL, MASK, MASKAUDIO, PAD
from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.batch import BatchChoices
from reserve.tasks.pretrain.text import MaskedText

MASKED_SCORE = -1e30
"""Score of masked entries; finite, so that a fully masked row is harmless."""


def centred(n: int) -> list[int]:
    return [*range(-(n // 2), 0), *range(1, n - n // 2 + 1)]


def angles_of(coordinates: torch.Tensor) -> torch.Tensor:
    """[..., axes] -> [..., 16]. Coordinates are single precision by definition; everything after is double."""
    count = 16 // coordinates.shape[-1]
    steps = [math.log2(5) * i / (count - 1) for i in range(count)]
    frequencies = torch.tensor([2**step for step in steps], dtype=torch.float64)
    return (math.pi * coordinates.float().double()[..., None] * frequencies).flatten(-2)


def rotate(x: torch.Tensor, angles: torch.Tensor, rotary: str) -> torch.Tensor:
    """[n, L, heads, 64] with angles [n, L, 16]."""
    even, odd = x[..., 0:32:2], x[..., 1:32:2]
    sin, cos = angles.sin()[:, :, None], angles.cos()[:, :, None]
    if rotary == "reserve":
        even, odd = even * (sin - cos), odd * (sin + cos)
    else:
        even, odd = even * cos - odd * sin, odd * cos + even * sin
    return torch.cat([torch.stack([even, odd], -1).flatten(-2), x[..., 32:]], -1)


@dataclass
class Outputs:
    """What the objective computes: `joint` by stream [n, L, H] after the head, contrast vectors, losses."""

    joint: dict[str, torch.Tensor]
    vectors: dict[str, torch.Tensor]
    losses: dict[str, torch.Tensor]
    by_source: dict[str, torch.Tensor]


class PlainModel:
    def __init__(self, weights: dict[str, torch.Tensor], config: ModelConfig, data: DataConfig) -> None:
        self.weights, self.config, self.data = weights, config, data

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        centre = x - x.mean(-1, keepdim=True)
        unit = centre / torch.sqrt((centre**2).mean(-1, keepdim=True) + 1e-5)
        return unit * self.weights[f"{name}/scale"] + self.weights[f"{name}/bias"]

    def dense(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ self.weights[f"{name}/kernel"] + self.weights[f"{name}/bias"]

    def transformer(
        self, x: torch.Tensor, coordinates: torch.Tensor, may: torch.Tensor, name: str, layers: int
    ) -> torch.Tensor:
        """x [n, L, H], coordinates [n, L, axes], may [n, L, L]: whether token i attends to token j."""
        weights = self.weights
        heads = x.shape[-1] // 64
        angles = angles_of(coordinates)
        x = self.norm(x, f"{name}/pre_ln")
        for i in range(layers):
            layer = f"{name}/layer_{i:02d}"
            y = self.norm(x, f"{layer}/pre_attn_ln")
            qkv = torch.einsum("nlh,hak->nlak", y, weights[f"{layer}/attention_layer/qkv/kernel"])
            qkv = qkv + weights[f"{layer}/attention_layer/qkv/bias"]
            q, k, v = qkv[:, :, :heads], qkv[:, :, heads : 2 * heads], qkv[:, :, 2 * heads :]
            q, k = rotate(q, angles, self.config.rotary), rotate(k, angles, self.config.rotary)
            scores = torch.einsum("nqak,nlak->naql", q, k) / 8
            probabilities = torch.where(may[:, None], scores, MASKED_SCORE).softmax(-1)
            seen = torch.einsum("naql,nlak->nqak", probabilities, v)
            x = x + torch.einsum("nqak,akh->nqh", seen, weights[f"{layer}/attention_layer/attn_proj/kernel"])
            y = self.dense(self.norm(x, f"{layer}/pre_mlp_ln"), f"{layer}/mlp_layer/intermediate")
            x = x + y * torch.sigmoid(1.702 * y) @ weights[f"{layer}/mlp_layer/out/kernel"]
        return self.norm(x, f"{name}/final_ln")

    def cls_transformer(
        self, x: torch.Tensor, coordinates: torch.Tensor, valid: torch.Tensor, name: str, layers: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Prepends CLS at the coordinates 0: (cls [n, H], seq [n, L, H])."""
        n = len(x)
        name = f"{name}/transformer"
        x = torch.cat([self.weights[f"{name}/cls"].expand(n, 1, -1), x], 1)
        coordinates = torch.cat([torch.zeros(1, coordinates.shape[-1]), coordinates]).expand(n, -1, -1)
        valid = torch.cat([torch.ones(n, 1, dtype=torch.bool), valid], 1)
        out = self.transformer(x, coordinates, valid[:, :, None] & valid[:, None, :], name, layers)
        return self.dense(out[:, 0], f"{name}/cls_proj"), out[:, 1:]

    def pool(self, windows: torch.Tensor, name: str) -> torch.Tensor:
        """[n, windows, tokens, H] -> [n, windows, H]."""
        w, name = self.weights, f"{name}/seq_attnpool"
        q = torch.einsum("nwh,hak->nwak", windows.mean(2), w[f"{name}/query/kernel"]) + w[f"{name}/query/bias"]
        k = torch.einsum("nwth,hak->nwtak", windows, w[f"{name}/key/kernel"]) + w[f"{name}/key/bias"]
        v = torch.einsum("nwth,hak->nwtak", windows, w[f"{name}/value/kernel"]) + w[f"{name}/value/bias"]
        probabilities = (torch.einsum("nwak,nwtak->nwat", q, k) / 8).softmax(-1)
        seen = torch.einsum("nwat,nwtak->nwak", probabilities, v)
        return torch.einsum("nwak,akh->nwh", seen, w[f"{name}/out/kernel"]) + w[f"{name}/out/bias"]

    def grid(self, height: int, width: int) -> torch.Tensor:
        scale = max(height, width) + 1
        return torch.tensor([[h / scale, w / scale] for h in centred(height) for w in centred(width)]).double()

    def vision(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[n, height, width, 3] -> (cls [n, H], pooled [n, cells, H])."""
        p, r = self.config.vit_patch_size, self.config.vit_pooling_ratio
        n, height, width, _ = images.shape
        rows, columns = height // p, width // p
        patches = [
            images[:, i * p : (i + 1) * p, j * p : (j + 1) * p].reshape(n, -1)
            for i in range(rows)
            for j in range(columns)
        ]
        x = self.dense(torch.stack(patches, 1), "vision_encoder/embedding")
        valid = torch.ones(n, rows * columns, dtype=torch.bool)
        cls, seq = self.cls_transformer(
            x, self.grid(rows, columns), valid, "vision_encoder", self.config.vit_num_layers
        )
        windows = [
            seq[:, [(i + di) * columns + j + dj for di in range(r) for dj in range(r)]]
            for i in range(0, rows, r)
            for j in range(0, columns, r)
        ]
        return cls, self.pool(torch.stack(windows, 1), "vision_encoder")

    def audio(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[n, frames, 65] -> (cls [n, H], pooled [n, tokens, H])."""
        config = self.config
        kernel, bias = (self.weights[f"audio_encoder/embedding/{part}"] for part in ("kernel", "bias"))
        count = config.audio_seq_length // config.audio_patch_size
        # A convolution whose stride is its width.
        patches = clips.reshape(len(clips), count, config.audio_patch_size, 65)
        x = torch.einsum("ntpc,pch->nth", patches, kernel) + bias
        coordinates = torch.tensor([[c / count] for c in centred(count)]).double()
        valid = torch.ones(len(clips), count, dtype=torch.bool)
        cls, seq = self.cls_transformer(x, coordinates, valid, "audio_encoder", config.audio_num_layers)
        return cls, self.pool(seq.reshape(len(clips), config.audio_token_length, -1, seq.shape[-1]), "audio_encoder")

    def spans(self, ids: torch.Tensor) -> torch.Tensor:
        """int [n, length] padded with PAD -> [n, H]."""
        x = self.weights["token_encoder/Embed_0/embedding"][ids]
        coordinates = torch.arange(1, ids.shape[1] + 1)[:, None] / 16
        return self.cls_transformer(x, coordinates, ids != PAD, "span_encoder", self.config.span_num_layers)[0]

    def joint(
        self,
        ids: torch.Tensor,
        segments: torch.Tensor,
        sounds: torch.Tensor | None = None,
        audio_ptr: torch.Tensor | None = None,
        frames: torch.Tensor | None = None,
        sources: torch.Tensor | None = None,
        tail: int = 0,
    ) -> torch.Tensor:
        """Language tokens [n, L], then images, then `tail` padding -> predictions at the language tokens [n, L, H].

        `segments` [n, L] the segment coordinate; `sounds` [n, subsegments, tokens, H] with `audio_ptr` [n, L];
        `frames` [n, segments, cells, H]; `sources` [n, segments].
        """
        n, length = ids.shape
        x = self.weights["token_encoder/Embed_0/embedding"][ids]
        if sounds is not None:
            x = self.with_sounds(x, ids, sounds, audio_ptr)
        zero = torch.zeros(n, length, dtype=torch.float64)
        token = torch.arange(1, length + 1).double().expand(n, length) / 1024
        coordinates = torch.stack([zero, zero, segments / 16, token], -1)
        valid = ids != PAD
        source = torch.zeros(n, length, dtype=torch.long) if sources is None else sources.gather(1, segments)
        if frames is not None:
            num_images, cells = frames.shape[1:3]
            rows, columns = (side // self.config.vit_pooling_ratio for side in self.config.output_grid)
            place = self.grid(rows, columns).repeat(num_images, 1)
            segment = torch.arange(num_images).repeat_interleave(cells)
            image = torch.cat([place, (segment / 16)[:, None], torch.zeros(len(segment), 1)], 1)
            x = torch.cat([x, frames.flatten(1, 2)], 1)
            coordinates = torch.cat([coordinates, image.expand(n, -1, -1)], 1)
            valid = torch.cat([valid, torch.ones(n, num_images * cells, dtype=torch.bool)], 1)
            one = torch.zeros(n, num_images, dtype=torch.long) if sources is None else sources
            source = torch.cat([source, one.repeat_interleave(cells, 1)], 1)
        x = torch.cat([x, x.new_zeros(n, tail, x.shape[-1])], 1)
        coordinates = torch.cat([coordinates, coordinates.new_zeros(n, tail, 4)], 1)
        valid = torch.cat([valid, torch.zeros(n, tail, dtype=torch.bool)], 1)
        source = torch.cat([source, torch.full((n, tail), -1)], 1)
        may = valid[:, :, None] & valid[:, None, :] & (source[:, :, None] == source[:, None, :])
        out = self.transformer(x, coordinates, may, "joint_transformer", self.config.joint_num_layers)
        return self.dense(out[:, :length], "head")

    def with_sounds(
        self, x: torch.Tensor, ids: torch.Tensor, sounds: torch.Tensor, audio_ptr: torch.Tensor
    ) -> torch.Tensor:
        rows = []
        for i in range(len(ids)):
            nth = 0
            tokens = []
            for j in range(ids.shape[1]):
                if ids[i, j] == AUDIOSPAN:
                    tokens.append(sounds[i, audio_ptr[i, j], nth % sounds.shape[2]])
                    nth += 1
                else:
                    tokens.append(x[i, j])
            rows.append(torch.stack(tokens))
        return torch.stack(rows)

    def pretrain(
        self, images: torch.Tensor, clips: torch.Tensor, texts: list[MaskedText], choices: BatchChoices, tail: int
    ) -> Outputs:
        """All of SPEC 7's joint sequences and SPEC 8's objective; `tail` tokens of padding after each sequence."""
        data = self.data
        examples = len(texts)
        frame_cls, frame_pooled = self.vision(images.flatten(0, 1))
        sound_cls, sound_pooled = self.audio(clips.flatten(0, 1))
        sound_cls = sound_cls.view(examples, data.num_subsegments, -1)
        sounds = sound_pooled.view(examples, data.num_subsegments, *sound_pooled.shape[1:])
        groups, per_group = data.num_segment_groups, data.segments_per_group
        frames = frame_pooled.view(examples * groups, per_group, *frame_pooled.shape[1:])

        def stream(name: str, part: str) -> torch.Tensor:
            arrays = [getattr(getattr(text, name), part) for text in texts]
            return torch.from_numpy(np.concatenate(arrays).astype(np.int64))

        joint = {}
        for name in ("text2audio", "audio2text"):
            pointers = stream(name, "audio_ptr")
            joint[name] = self.joint(
                stream(name, "ids"),
                (pointers // data.num_audio_subsegments) % per_group,
                sounds=sounds.repeat_interleave(groups, 0) if name == "audio2text" else None,
                audio_ptr=pointers,
                frames=frames,
                sources=torch.from_numpy(getattr(choices, f"{name}_source").reshape(-1, per_group)),
                tail=tail,
            )
        ids = stream("audio_text_matching", "ids")
        pointers = stream("audio_text_matching", "audio_ptr")
        joint["audio_text_matching"] = self.joint(
            ids, (ids == LTOVPOOL).cumsum(1), sounds=sounds, audio_ptr=pointers, tail=tail
        )
        ids = stream("random_text", "ids")
        joint["random_text"] = self.joint(ids, torch.zeros_like(ids), tail=tail)

        by_example = {name: out.view(examples, -1, *out.shape[1:]) for name, out in joint.items()}
        vectors, sources = self.contrast_vectors(frame_cls, sound_cls, by_example, texts, choices.kept_spans)
        losses, by_source = self.losses(vectors, sources)
        return Outputs(joint, vectors, losses, by_source)

    def contrast_vectors(
        self,
        frame_cls: torch.Tensor,
        sound_cls: torch.Tensor,
        joint: dict[str, torch.Tensor],
        texts: list[MaskedText],
        kept: np.ndarray,
    ) -> tuple[dict[str, torch.Tensor], list[int]]:
        """`joint` [B, sequences, L, H] by stream -> vectors before they are normalised, and each span's source."""
        nothing = torch.zeros(self.config.hidden_size, dtype=torch.float64)
        masked = self.data.num_masked_subsegments
        pool_x, audio_x, audio_y, audio_extra = [], [], [], []
        for b, text in enumerate(texts):
            pools = find(text.audio_text_matching, LTOVPOOL)
            pool_x += [joint["audio_text_matching"][b][at] for at in pools]
            pool_x += [nothing] * (self.data.num_segments - len(pools))
            asked = {text.text2audio.audio_ptr[at]: at for at in find(text.text2audio, MASKAUDIO)}
            others = [i for i in range(self.data.num_subsegments) if i not in asked]
            order = sorted(asked) + others
            for i in order[:masked]:
                audio_x.append(joint["text2audio"][b][asked[i]] if i in asked else nothing)
                audio_y.append(sound_cls[b, i])
            audio_extra += [sound_cls[b, i] for i in order[masked:]]
        span_x, spans, sources = [], [], []
        for k in kept.tolist():
            b, i = divmod(k, self.data.num_text_spans)
            x, source = nothing, -1
            for number, name in enumerate(("text2audio", "audio2text", "random_text")):
                stream = getattr(texts[b], name)
                for at in find(stream, MASK):
                    if stream.text_ptr[at] == i:
                        x, source = joint[name][b][at], number
            span_x.append(x)
            spans.append(texts[b].text_spans[i])
            sources.append(source)
        return {
            "imgs_to_audio/x": torch.stack(pool_x),
            "imgs_to_audio/y": frame_cls,
            "text_to_audio/x": torch.stack(audio_x),
            "text_to_audio/y": torch.stack(audio_y),
            "text_to_audio/y_extra": torch.stack(audio_extra),
            "stuff_to_span/x": torch.stack(span_x),
            "stuff_to_span/y": self.spans(torch.from_numpy(np.stack(spans).astype(np.int64))),
        }, sources

    def losses(
        self, vectors: dict[str, torch.Tensor], sources: list[int]
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        losses, by_source = {}, {}
        for number, name in enumerate(("imgs_to_audio", "text_to_audio", "stuff_to_span")):
            scale = torch.exp(self.weights["contrastive_scales"][number].clamp(max=math.log(100)) / 2)

            def unit(part: str, name: str = name, scale: torch.Tensor = scale) -> torch.Tensor:
                v = vectors[f"{name}/{part}"]
                return v / torch.sqrt((v**2).sum(-1, keepdim=True) + 1e-5) * scale

            x, y = unit("x"), unit("y")
            candidates = torch.cat([y, unit("y_extra")]) if f"{name}/y_extra" in vectors else y
            positive = (x * y).sum(-1)
            x_to_y = (x @ candidates.T).logsumexp(-1) - positive
            y_to_x = (y @ x.T).logsumexp(-1) - positive
            losses[name] = (x_to_y.mean() + y_to_x.mean()) / 2
            if name == "stuff_to_span":
                for index, source in enumerate(("text2audio", "audio2text", "random_text")):
                    mine = torch.tensor([float(s == index) for s in sources]).double()
                    by_source[source] = ((x_to_y + y_to_x) / 2 * mine).sum() / (mine.sum() + 1e-5)
        return losses, by_source


def find(stream: TokenStream, token: int) -> list[tuple[int, int]]:
    """(sequence, position) of every `token`, in order."""
    return [(int(i), int(j)) for i, j in zip(*np.nonzero(stream.ids == token), strict=True)]
