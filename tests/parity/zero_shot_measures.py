"""Zero-shot reading and answering against the reference's recorded numbers (SPEC 10.5, 10.6)."""

from __future__ import annotations

import numpy as np
import torch

from reserve.batch.vocabulary import PAD
from reserve.data.float_images import finetuning_image, zero_shot_image
from reserve.data.images import trim_black_bars
from reserve.data.video_sound import TimeSpan, normalized, segment_clips
from reserve.tasks.zero_shot.encoding import encode_frames, encode_masks, encode_sounds
from reserve.tasks.zero_shot.readout import encode_options, option_logits
from tests.parity.figures import Figure, largest, relative
from tests.parity.golden import Golden
from tests.parity.zero_shot_golden import LISTS, ZeroShotGolden, as_patches


def reading(golden: Golden) -> list[Figure]:
    """Pictures and sounds, from decoded frames and samples to the model's inputs."""
    recorded = ZeroShotGolden(golden.folder)
    arrays, size = recorded.arrays, recorded.config.image_size
    frames = {key.removeprefix("frame/"): value for key, value in arrays.items() if key.startswith("frame/")}
    asked = max(largest(as_patches(zero_shot_image(f, size)), arrays[f"patches/{name}"]) for name, f in frames.items())
    tuned = max(
        largest(
            as_patches(finetuning_image(f, size)), arrays.get(f"finetune_patches/{name}", arrays[f"patches/{name}"])
        )
        for name, f in frames.items()
    )
    figures = [
        Figure("zero-shot pictures", "largest absolute error", asked, 5e-6),
        Figure("pictures while finetuning", "largest absolute error", tuned, 5e-6),
    ]
    for name in sorted({key.split("/")[1] for key in arrays if key.startswith("bars/")}):
        first = trim_black_bars(list(arrays[f"bars/{name}/frames"]), trim_black=True)[0]
        y1, y2, x1, x2 = arrays[f"bars/{name}/y1y2x1x2"]
        expected = arrays[f"bars/{name}/frames"][0][y1:y2, x1:x2]
        figures.append(
            Figure(f"black bars, {name}", "pixels that differ", float(not np.array_equal(first, expected)), 0)
        )
    track = normalized(arrays["track"].astype(np.float32) / 32768)
    clips = segment_clips(track, [TimeSpan(*times) for times in arrays["audio_times"].tolist()])
    worst = largest(clips, arrays["audio_spectrograms"])
    return [*figures, Figure("zero-shot sounds", "largest absolute error", worst, 2e-4)]


@torch.no_grad()
def answering(golden: Golden) -> list[Figure]:
    """From inputs to logits: the vectors of every token and of the MASKs, of the options, and their products."""
    recorded = ZeroShotGolden(golden.folder)
    model, arrays = recorded.model, recorded.arrays
    options = encode_options(model, arrays["options"])
    error = relative(options.numpy(), arrays["label_space"])
    figures = [Figure("zero-shot options", "relative error", error, 1e-5)]
    for name in LISTS:
        images, clips, question = recorded.inputs(name)
        ids, subsegments = question.tokens
        for what, ours in (("tokens", ids), ("subseg_idxs", subsegments)):
            differing = float((ours != arrays[f"{name}/{what}"]).sum())
            figures.append(Figure(f"{what}, {name}", "entries that differ", differing, 0))
        whole = np.zeros((len(images), 3, 60, 65), np.float32)
        whole[question.sounds >= 0] = clips
        vectors = model.embed_video(images[None], whole.reshape(1, -1, 60, 65), ids[None], subsegments[None])[0]
        sounds = encode_sounds(model, clips) if len(clips) else None
        (masks,) = encode_masks(model, encode_frames(model, images), sounds, [question])
        logits = option_logits(masks, options)
        for what, value in (("encoded", vectors[torch.from_numpy(ids != PAD)]), ("out_h", masks), ("logits", logits)):
            error = relative(value.numpy(), arrays[f"{name}/{what}"])
            figures.append(Figure(f"{what}, {name}", "relative error", error, 1e-5))
    return figures
