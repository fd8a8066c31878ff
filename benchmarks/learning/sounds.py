"""Whether pretraining on narrated videos helps to name real sounds: ESC-10 and spoken digits.

Compares a linear classifier of mel statistics, the same on the frozen audio encoder, pretrained and untrained, and the
encoder finetuned from both.

`python -m benchmarks.learning.sounds --esc10 FOLDER --fsdd FOLDER --save` takes the models that
`benchmarks.learning.objectives` left in --out, or --weights; docs/learning.md shows the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning.answers import by_group
from benchmarks.learning.arms import CONTRASTIVE
from benchmarks.learning.command import show, study_parser
from benchmarks.learning.finetuning import pretrained, start_of
from benchmarks.learning.provenance import provenance
from benchmarks.learning.runs import Run, finish_all, run_one
from benchmarks.learning.sound_finetuning import finetune
from benchmarks.learning.sound_probes import encoded, mel_statistics, probe
from benchmarks.learning.sound_sets import SETS
from reserve.model.encoders import AudioEncoder
from reserve.model.merlot_reserve import MerlotReserve

FILE = "learning_sounds.json"
MODULE = "benchmarks.learning.sounds"
FOLDER = "sounds"
MEL, PROBE, PROBE_UNTRAINED = "mel statistics", "frozen, pretrained", "frozen, untrained"
FINETUNED, FINETUNED_UNTRAINED = "finetuned, pretrained", "finetuned, untrained"
METHODS = (MEL, PROBE, PROBE_UNTRAINED, FINETUNED, FINETUNED_UNTRAINED)


def encoders(weights: Sequence[str], *, untrained: bool) -> list[AudioEncoder]:
    """The audio encoder of each of the models, or as many of the first one's sizes with weights from seeds 0, 1, …"""
    if not untrained:
        return [MerlotReserve.from_pretrained(one).audio_encoder for one in weights]
    config = MerlotReserve.from_pretrained(weights[0]).config
    found = []
    for seed in range(len(weights)):
        torch.manual_seed(seed)
        found.append(MerlotReserve(config).audio_encoder)
    return found


def name_sounds(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The right answers of one method on one data set, by source."""
    method, weights = settings["method"], [start["weights"] for start in settings["starts"]]
    sounds = SETS[settings["set"]][1](Path(settings["folder"]), MerlotReserve.from_pretrained(weights[0]).config)
    if method == MEL:
        right = probe(mel_statistics(sounds.windows), sounds)[None]
    else:
        models = encoders(weights, untrained=method in (PROBE_UNTRAINED, FINETUNED_UNTRAINED))
        if method in (PROBE, PROBE_UNTRAINED):
            with torch.no_grad():
                right = np.stack([probe(encoded(model, sounds.windows).numpy(), sounds) for model in models])
        else:
            right = finetune(models, sounds)
    counted = by_group(sounds.source.tolist(), {str(run): one.tolist() for run, one in enumerate(right)})
    last = sounds.part == sounds.part.max()
    return counted | {
        "classes": sounds.classes,
        "rotations": len(np.unique(sounds.part)),
        "last_part": {"clips": int(last.sum()), "right": right[:, last].sum(1).tolist()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study_parser(MODULE, __doc__)
    for name, (option, _) in SETS.items():
        parser.add_argument(f"--{option}", type=Path, help=f"the folder of {name}; left out where it is not there")
    parser.add_argument("--weights", nargs="+", help="pretrained folders; by default those of objectives in --out")
    options = parser.parse_args(arguments)
    if options.one:
        run_one(options.one, name_sounds)
        return
    if options.weights and options.save:
        parser.error("--save stores the result of the objectives' models: leave out --weights")
    models = [Path(one) for one in options.weights or ()]
    models = models or [path for (arm, _), path in sorted(pretrained(options.out).items()) if arm == CONTRASTIVE]
    if not models:
        parser.error(f"{options.out} has no pretrained models: run benchmarks.learning.objectives, or give --weights")
    runs = []
    for name, (option, _) in SETS.items():
        folder = getattr(options, option)
        if folder is None or not folder.is_dir():
            print(f"{name} is left out: " + ("--" + option + " is not given" if folder is None else f"no {folder}"))
            continue
        shared = {"set": name, "folder": str(folder.resolve()), "starts": [start_of(model) for model in models]}
        runs += [
            Run(
                options.out / FOLDER / f"{option}-{method.replace(', ', '-').replace(' ', '-')}",
                shared | {"method": method},
            )
            for method in METHODS
        ]
    if not runs:
        return
    found = {"runs": finish_all(MODULE, runs, again=options.again), "provenance": provenance()}
    from benchmarks.report.learning.sounds import section

    show(found, section, FILE, options)


if __name__ == "__main__":
    main()
