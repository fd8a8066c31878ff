"""Steps of pretraining from the schedule to the weights, against the padded restatement and Adam in float64."""

from __future__ import annotations

import numpy as np
import torch

from reserve.checkpoint.official import load_official
from reserve.checkpoint.official_layout import parameter_entries
from reserve.config import Config, DataConfig, OptimizerConfig, TrainConfig
from reserve.tasks.pretrain.batch import pack_batch
from reserve.tasks.pretrain.task import Pretrain
from reserve.train.distributed import Ranks
from reserve.train.optimizer import make_optimizer
from reserve.train.step import set_learning_rate, train_step
from tests.helpers.plain_model import PlainModel
from tests.helpers.random_batches import VOCABULARY, random_batch, random_weights
from tests.helpers.tiny import tiny

DATA = DataConfig(
    num_segments=2, num_segment_groups=1, lang_seq_len=31, seq_len=47, text_span_budget=3, num_text_spans_to_include=4
)
MODEL = tiny(vocab_size=VOCABULARY)
RATE, WARMUP = 1e-3, 2
# The warm-up starts at zero and ends at the third step.
RATES = [0.0, RATE / 2, RATE]
CONFIG = Config(
    data=DATA,
    model=MODEL,
    optimizer=OptimizerConfig(
        learning_rate=RATE,
        num_warmup_steps=WARMUP,
        num_train_steps=10,
        use_bfloat16_adam=False,
        do_bias_correction=False,
    ),
    train=TrainConfig(precision="float32"),
)


def test_three_steps_move_every_weight_as_stated() -> None:
    rng = np.random.default_rng(0)
    weights = random_weights(MODEL, rng)
    raw = random_batch(1, DATA, MODEL, rng)
    batch = pack_batch(raw.images, raw.clips, raw.texts, raw.choices, DATA, MODEL)
    model = load_official(weights, MODEL)
    task = Pretrain.of(CONFIG)
    optimizer = make_optimizer(model, task.parameter_groups(model, CONFIG.optimizer), CONFIG.optimizer)
    plain = PlainModel({k: torch.from_numpy(v).double().requires_grad_() for k, v in weights.items()}, MODEL, DATA)
    m, v = ({name: torch.zeros_like(w) for name, w in plain.weights.items()} for _ in range(2))
    ranks = Ranks(0, 1, torch.device("cpu"))

    for step, rate in enumerate(RATES):
        set_learning_rate(optimizer, step, CONFIG.optimizer)
        reported = train_step(lambda b: task.loss(model, b, None), optimizer, [batch], CONFIG, ranks)
        outputs = plain.pretrain(raw.images, raw.clips, raw.texts, raw.choices, tail=0)
        loss = sum(outputs.losses.values())
        assert abs(float(reported["loss"]) - float(loss.detach())) < 1e-5 * float(loss.detach())
        gradients = torch.autograd.grad(loss, list(plain.weights.values()))
        with torch.no_grad():
            for (name, w), g in zip(plain.weights.items(), gradients, strict=True):
                m[name] = 0.9 * m[name] + 0.1 * g
                v[name] = 0.98 * v[name] + 0.02 * g**2
                decay = 0.1 * w if w.dim() > 1 else 0.0
                w -= rate * (m[name] / (v[name].sqrt() + 1e-6) + decay)
        parameters = dict(model.named_parameters())
        for entry in parameter_entries(MODEL):
            error = np.abs(entry.to_flax(parameters[entry.torch]) - plain.weights[entry.flax].detach().numpy())
            # A gradient that is zero up to rounding moves its weight by up to the learning rate.
            if not entry.flax.endswith("seq_attnpool/key/bias"):
                assert error.max() < 1e-5, f"{entry.flax} after step {step + 1}: {error.max():.2e}"
