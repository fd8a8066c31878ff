"""The options of commands that ask a pretrained model, and the model that they name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from reserve.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from reserve.config import TrainConfig
    from reserve.data.tokenizer import Tokenizer
    from reserve.model.merlot_reserve import MerlotReserve

logger = logging.getLogger(__name__)


class AskedModel(NamedTuple):
    """A model on its device, its vocabulary, and the settings of device and precision."""

    model: MerlotReserve
    tokenizer: Tokenizer
    config: TrainConfig


def add_model_arguments(parser: ArgumentParser) -> None:
    """Adds --weights, --sizes, --tokenizer, --device and --precision."""
    parser.add_argument(
        "--weights",
        type=str,
        help="a run's folder, for its newest checkpoint; a model's folder; a hub id; or an official checkpoint with "
        "--sizes",
    )
    parser.add_argument(
        "--sizes", type=str, help="of official weights: base_resadapt, large_resadapt, base, large or a YAML file"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="the vocabulary of the weights; by default the run's, or else this package's"
    )
    parser.add_argument("--device", type=Literal["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--precision",
        type=Literal["auto", "float32", "bfloat16"],
        default="auto",
        help="of activations; auto is bfloat16 where the device has it",
    )


def check_model_arguments(options: Namespace) -> None:
    """Raises UsageError for no --weights, or --sizes that do not belong to them; warns of a vocabulary likely wrong."""
    if options.weights is None:
        raise UsageError("name the model with --weights, such as the folder of a run")
    from reserve.tasks.zero_shot.weights import check_sizes

    try:
        check_sizes(options.weights, options.sizes)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if options.sizes is not None and options.tokenizer is None:
        logger.warning(
            "%s is read with this package's vocabulary; the released weights need --tokenizer", options.weights
        )


def load_asked_model(options: Namespace) -> AskedModel:
    """Loads what the options name, which `check_model_arguments` has checked."""
    from reserve.config import TrainConfig
    from reserve.tasks.zero_shot.weights import load_vocabulary, load_weights
    from reserve.train.distributed import pick_device

    config = TrainConfig(device=options.device, precision=options.precision)
    tokenizer = load_vocabulary(options.weights, options.tokenizer)
    model = load_weights(options.weights, options.sizes).to(pick_device(options.device))
    return AskedModel(model, tokenizer, config)
