"""MERLOT Reserve: the four encoders, the joint projection and the temperatures (SPEC 4, 6)."""

from __future__ import annotations

from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from reserve.batch.inputs import ModelInputs
from reserve.batch.packing import PackedSequences, PackedSpans, pack_joint, pack_spans
from reserve.batch.streams import JointStream
from reserve.batch.video_tokens import MAX_SEGMENTS, SUBSEGMENTS
from reserve.batch.vocabulary import AUDIOSPAN, PAD, SPECIAL_TOKENS
from reserve.config import MEL_CHANNELS, ModelConfig
from reserve.model.encoders import AudioEncoder, Encoded, SpanEncoder, VisionEncoder
from reserve.model.initialization import allocate, initialize, is_undrawn
from reserve.model.placement import module_device
from reserve.model.pretrained import Pretrained
from reserve.model.rotary import rotary_angles
from reserve.model.transformer import Transformer
from reserve_kernels.checks import has_values

NORM_EPS = 1e-5


def unit_normalize(x: torch.Tensor) -> torch.Tensor:
    """x / sqrt(sum x^2 + 1e-5) over the last axis, computed in float32 at least (SPEC 8)."""
    wide = x if x.dtype == torch.float64 else x.float()
    return (wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + NORM_EPS)).to(x.dtype)


class Outputs(NamedTuple):
    """The outputs of a forward pass.

    `joint` [tokens, hidden]: the joint encoder's packed output before the head; `frames` and `sounds`: encodings of the
    images and of the audio clips, `sounds` None without clips; `spans` [spans, hidden], None without spans.
    """

    joint: torch.Tensor
    frames: Encoded
    sounds: Encoded | None
    spans: torch.Tensor | None


class MerlotReserve(Pretrained):
    """MERLOT Reserve.

    `forward` encodes a batch for training. `embed_video`, `embed_text_spans` and `embed_audio` return unit vectors to
    compare by dot product. `from_pretrained` and `save_pretrained` read and write a folder.

    A new model has torch's default dtype and device, as every module has; a loaded one is in float32 on the CPU. On the
    meta device and under FakeTensorMode it is made and called without numbers, to plan memory or pipelines.
    """

    only_parameters = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        device = torch.get_default_device()
        # Without values, since PyTorch would draw some that reset_parameters replaces.
        with torch.device("meta"):
            self._make_parts(config)
        allocate(self, device)
        if not is_undrawn():
            self.reset_parameters()

    def _make_parts(self, config: ModelConfig) -> None:
        """Sets the parts of the model, on the meta device. Subclasses leave out some, or add to them."""
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.vision_encoder = VisionEncoder(config)
        self.audio_encoder = AudioEncoder(config)
        self.span_encoder = SpanEncoder(config)
        self.joint_transformer = Transformer(config.hidden_size, config.joint_num_layers, config.rotary)
        self.head = nn.Linear(config.hidden_size, config.hidden_size)
        self.contrastive_scales = nn.Parameter(torch.ones(3))

    def reset_parameters(self) -> None:
        """Initialises every parameter from torch's default generator, in place."""
        initialize(self, self.config.init_scale)
        nn.init.constant_(self.contrastive_scales, self.config.init_log_scale)

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v}" for k, v in asdict(self.config).items())

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return module_device(self)

    def forward(self, inputs: ModelInputs) -> Outputs:
        """Encodes frames, sounds and text spans, and the joint sequences over them."""
        frames = self.vision_encoder(inputs.images.flatten(0, -4))
        sounds = None if inputs.audio_clips is None else self.audio_encoder(inputs.audio_clips.flatten(0, -3))
        pooled_audio = self._no_audio(frames.pooled) if sounds is None else sounds.pooled
        words, of_spans = self._embeddings(inputs)
        joint = self.encode_joint(inputs.joint, frames.pooled, pooled_audio, words)
        spans = None if inputs.spans is None else self.encode_spans(inputs.spans, of_spans)
        return Outputs(joint, frames, sounds, spans)

    def _embeddings(self, inputs: ModelInputs) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embeddings of the joint sequences' words and of the spans' tokens.

        One lookup for both: each has a gradient as large as the vocabulary, which the backward pass fills and adds.
        """
        if inputs.spans is None:
            return self.token_embedding(inputs.joint.text_ids), None
        ids = (inputs.joint.text_ids, inputs.spans.token_ids)
        words, of_spans = self.token_embedding(torch.cat(ids)).split([len(part) for part in ids])
        return words, of_spans

    def encode_joint(
        self,
        packed: PackedSequences,
        images: torch.Tensor,
        audio: torch.Tensor,
        words: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Runs the joint encoder over packed sequences: [tokens, hidden], before the head.

        `images` [frames, cells, hidden] and `audio` [subsegments, 6, hidden] are the encoders' pooled tokens. `words`
        [words, hidden] are the embeddings of `packed.text_ids`; without them they are looked up.
        """
        x = self.joint_inputs(packed, images, audio, words)
        angles = rotary_angles(packed.coordinates, x.dtype)
        return self.joint_transformer(x, packed.cu_seqlens, packed.max_seqlen, angles)

    def joint_inputs(
        self,
        packed: PackedSequences,
        images: torch.Tensor,
        audio: torch.Tensor,
        words: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings of the packed tokens [tokens, hidden]: words, pooled audio and pooled image tokens.

        The arguments are those of `encode_joint`.
        """
        text = (self.token_embedding(packed.text_ids) if words is None else words).to(images.dtype)
        stacked = torch.cat((text, audio.flatten(0, 1)[packed.audio_index], images.flatten(0, 1)[packed.image_index]))
        # Written to its place rather than read from it: the gradient is then a plain read, where that of indexing sorts
        # the indices first, since it cannot know that they are a permutation.
        place = torch.empty_like(packed.order)
        place[packed.order] = torch.arange(len(place), device=place.device)
        return torch.empty_like(stacked).index_copy_(0, place, stacked)

    def encode_spans(self, spans: PackedSpans, tokens: torch.Tensor | None = None) -> torch.Tensor:
        """Encodes packed text spans: [spans, hidden].

        `tokens` [tokens, hidden] are the embeddings of `spans.token_ids`; without them they are looked up.
        """
        return self.span_encoder(spans, self.token_embedding(spans.token_ids) if tokens is None else tokens)

    def embed_text_spans(self, spans: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Token ids int [n, length], padded with PAD, length at most 15 -> unit vectors [n, hidden].

        Raises ValueError or TypeError for an invalid shape, dtype or id.
        """
        limit = self.config.text_span_length
        spans = _as_tensor("spans", spans)
        if spans.dim() != 2 or spans.shape[1] > limit:
            raise ValueError(f"spans must be [n, length] with length at most {limit}; got {tuple(spans.shape)}")
        packed = pack_spans(self._read_ids("spans", spans))
        return unit_normalize(self.encode_spans(packed.to(self.device)))

    def embed_audio(self, clips: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Log-mels [..., 60, 65], the last channel the playback speed -> unit vectors [..., hidden].

        Raises ValueError or TypeError for an invalid shape or dtype.
        """
        clips = self._checked_clips("clips", clips)
        encoded = self.audio_encoder(clips.reshape(-1, *clips.shape[-2:])).cls
        return unit_normalize(encoded).reshape(*clips.shape[:-2], self.config.hidden_size)

    def embed_video(
        self,
        images: torch.Tensor | np.ndarray,
        audio_clips: torch.Tensor | np.ndarray | None,
        tokens: torch.Tensor | np.ndarray,
        subsegments: torch.Tensor | np.ndarray,
    ) -> torch.Tensor:
        """Jointly encodes videos and their language tokens.

        Args:
            images: [videos, segments, height, width, 3], uint8 or floating in [0, 1]; 1 to 8 segments; height and width
                are multiples of 32 pixels.
            audio_clips: [videos, 3 * segments, 60, 65]; None if no token is AUDIOSPAN.
            tokens: Token ids int [videos, L]. AUDIOSPAN stands for the audio of its subsegment; PAD is ignored.
            subsegments: The subsegment of each token, int [videos, L] in [0, 3 * segments); each segment has three. -1
                for words that belong to none, such as a title: they take the position of segment 7, the last of a
                group, as in pretraining (SPEC 7).

        Returns:
            Unit vectors [videos, L, hidden]; zeros at PAD.

        Raises ValueError or TypeError for an invalid shape, dtype or value.
        """
        images = self._checked_images(images)
        tokens, subsegments = _as_tensor("tokens", tokens), _as_tensor("subsegments", subsegments)
        videos, segments, height, width, _ = images.shape
        if tokens.shape != subsegments.shape or tokens.dim() != 2 or len(tokens) != videos:
            raise ValueError(
                f"tokens and subsegments must both be [{videos}, L]; "
                f"got {tuple(tokens.shape)} and {tuple(subsegments.shape)}"
            )
        _check_whole("subsegments", subsegments)
        packed = self._pack_videos(self._read_ids("tokens", tokens), subsegments, segments, (height, width))
        pooled_frames = self.vision_encoder(images.flatten(0, 1)).pooled
        pooled_audio = self._pooled_clips(audio_clips, packed, videos, segments, like=pooled_frames)
        joint = unit_normalize(self.head(self.encode_joint(packed.to(self.device), pooled_frames, pooled_audio)))
        rows = torch.from_numpy(packed.rows["video"]).to(self.device)
        return torch.where((rows >= 0)[..., None], joint[rows.clamp_min(0)], 0.0)

    def _pack_videos(
        self, ids: np.ndarray, subsegments: torch.Tensor, segments: int, size: tuple[int, int]
    ) -> PackedSequences:
        pointers = subsegments.cpu().numpy() if has_values(subsegments) else np.zeros(ids.shape, np.int64)
        videos = len(ids)
        used, heard = pointers[ids != PAD], pointers[ids == AUDIOSPAN]
        if used.size and not -1 <= used.min() <= used.max() < SUBSEGMENTS * segments:
            raise ValueError(
                f"subsegments must be in [0, {SUBSEGMENTS * segments}) for {segments} segments, or -1; "
                f"got {used.min()} to {used.max()}"
            )
        if heard.size and heard.min() < 0:
            raise ValueError("subsegments must not be -1 where tokens are AUDIOSPAN: it has no sound")
        stream = JointStream(
            name="video",
            ids=ids,
            audio_ptr=pointers,
            segment=pointers // SUBSEGMENTS % MAX_SEGMENTS,
            example=np.arange(videos),
            images=np.arange(videos * segments).reshape(videos, segments),
        )
        cell = self.config.vit_patch_size * self.config.vit_pooling_ratio
        return pack_joint(
            [stream],
            subsegments=SUBSEGMENTS * segments,
            audio_tokens=self.config.audio_token_length,
            pooled_grid=(size[0] // cell, size[1] // cell),
        )

    def _pooled_clips(
        self,
        clips: torch.Tensor | np.ndarray | None,
        packed: PackedSequences,
        videos: int,
        segments: int,
        like: torch.Tensor,
    ) -> torch.Tensor:
        if clips is None:
            if packed.audio_index.numel():
                raise ValueError("audio_clips must not be None: tokens contain AUDIOSPAN")
            return self._no_audio(like)
        clips = self._checked_clips("audio_clips", clips)
        if clips.shape[:2] != (videos, SUBSEGMENTS * segments):
            raise ValueError(
                f"audio_clips must be [{videos}, {SUBSEGMENTS * segments}, ...] for {segments} segments; "
                f"got {tuple(clips.shape)}"
            )
        if not packed.audio_index.numel():  # no token looks at them
            return self._no_audio(like)
        return self.audio_encoder(clips.flatten(0, 1)).pooled

    def _no_audio(self, like: torch.Tensor) -> torch.Tensor:
        """An empty tensor of pooled audio tokens, in the dtype and on the device of `like`."""
        return like.new_empty(0, self.config.audio_token_length, self.config.hidden_size)

    def _checked_images(self, images: torch.Tensor | np.ndarray) -> torch.Tensor:
        images = _as_tensor("images", images)
        if images.dim() != 5 or images.shape[-1] != 3:
            raise ValueError(f"images must be [videos, segments, height, width, 3]; got {tuple(images.shape)}")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise TypeError(f"images must be uint8 or floating in [0, 1]; got {images.dtype}")
        _, segments, height, width, _ = images.shape
        if not 1 <= segments <= MAX_SEGMENTS:
            raise ValueError(f"images must show 1 to {MAX_SEGMENTS} segments; got {segments}")
        cell = self.config.vit_patch_size * self.config.vit_pooling_ratio
        if not height or not width or height % cell or width % cell:
            raise ValueError(f"images must have sides that are multiples of {cell} pixels; got {height} x {width}")
        return images.to(self.device)

    def _read_ids(self, name: str, ids: torch.Tensor) -> np.ndarray:
        """Checked token ids. Without values, on the meta device, every place counts as a word: no result is larger."""
        _check_whole(name, ids)
        if not has_values(ids):
            return np.full(ids.shape, len(SPECIAL_TOKENS))
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.config.vocab_size:
            raise ValueError(
                f"{name} must be token ids in [0, {self.config.vocab_size}); got {int(ids.min())} to {int(ids.max())}"
            )
        return ids.cpu().numpy()

    def _checked_clips(self, name: str, clips: torch.Tensor | np.ndarray) -> torch.Tensor:
        clips = _as_tensor(name, clips)
        if clips.dim() < 2 or clips.shape[-2:] != (self.config.audio_seq_length, MEL_CHANNELS):
            raise ValueError(
                f"{name} must be [..., {self.config.audio_seq_length}, {MEL_CHANNELS}]; got {tuple(clips.shape)}"
            )
        if not clips.is_floating_point():
            raise TypeError(f"{name} must be floating; got {clips.dtype}")
        return clips.to(self.device)


def _as_tensor(name: str, value: object) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a torch.Tensor or a numpy array; got {type(value).__name__}")
    try:
        return torch.from_numpy(np.ascontiguousarray(value) if value.flags.writeable else value.copy())
    except TypeError as error:
        raise TypeError(f"{name} must hold numbers that torch has; got {value.dtype}") from error


def _check_whole(name: str, value: torch.Tensor) -> None:
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must be whole numbers; got {value.dtype}")
