"""The distributions of SPEC 4, for every parameter."""

from __future__ import annotations

import math
from dataclasses import replace
from threading import Event, Thread

import pytest
import torch
from torch import nn

from reserve.model.initialization import float32_on_cpu, initialize, truncated_normal_, undrawn
from reserve.model.merlot_reserve import MerlotReserve
from tests.helpers.tiny import tiny
from tests.helpers.torch_defaults import OTHER_DTYPES, torch_defaults

CONFIG = tiny(hidden_size=128, vocab_size=500, vit_patch_size=8, output_grid=(12, 20))
# Standard deviation of a unit normal truncated at two sigma.
TRUNCATED_STD = 0.87962566103423978


def expected_std(name: str, fan_in: int) -> float:
    if ".pool." in name:
        return 1 / math.sqrt(fan_in)
    return TRUNCATED_STD * min(18 / fan_in, 0.02) / math.sqrt(2)


def test_every_parameter_is_initialised() -> None:
    torch.manual_seed(0)
    model = MerlotReserve(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    model.reset_parameters()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), name
        if name.endswith("norm.weight") or name == "contrastive_scales":
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif parameter.dim() == 2 and name != "token_embedding.weight":
            std = expected_std(name, parameter.shape[1])
            # Five standard errors of a standard deviation.
            assert abs(parameter.std() / std - 1) < 5 / math.sqrt(2 * parameter.numel()), name
            assert parameter.abs().max() <= 2 * std / TRUNCATED_STD * (1 + 1e-6), name
        else:
            assert abs(parameter.std() / 0.02 - 1) < 5 / math.sqrt(2 * parameter.numel()), name


def test_truncated_normals_have_the_quantiles_of_the_distribution() -> None:
    torch.manual_seed(0)
    weight = torch.empty(300, 1000)
    truncated_normal_(weight, 0.5)
    values = weight.flatten().sort().values.double() / 0.5
    assert values.abs().max() <= 2
    normal = torch.distributions.Normal(torch.tensor(0.0).double(), torch.tensor(1.0).double())
    cdf = (normal.cdf(values) - normal.cdf(torch.tensor(-2.0).double())) / math.erf(math.sqrt(2))
    # Kolmogorov and Smirnov: a distance above 1.95 / sqrt(n) has a probability of 0.1 %.
    rank = torch.arange(len(values)).double() / len(values)
    assert (cdf - rank).abs().max() < 1.95 / math.sqrt(len(values))


def test_truncated_normals_depend_on_the_generator_alone() -> None:
    torch.manual_seed(0)
    one, other = torch.empty(37, 1001), torch.empty(37, 1001)
    truncated_normal_(one, 1.0)
    truncated_normal_(other, 1.0)
    assert not torch.equal(one, other)
    torch.manual_seed(0)
    truncated_normal_(other, 1.0)
    assert torch.equal(one, other)


@pytest.mark.parametrize("context", [undrawn, lambda: torch.device("meta")])
def test_nothing_is_drawn_for_weights_that_are_loaded(context) -> None:
    before = torch.get_rng_state()
    with context():
        MerlotReserve(CONFIG)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, *OTHER_DTYPES], ids=str)
def test_a_new_model_has_torchs_default_dtype_and_device(dtype: torch.dtype) -> None:
    """As every module does. `init_scale` 3 keeps the kernels' numbers normal in float16."""
    with torch_defaults(dtype):
        model = MerlotReserve(replace(CONFIG, init_scale=3.0))
        assert {(p.dtype, p.device.type) for p in model.parameters()} == {(dtype, "cpu")}
        assert all(p.isfinite().all() for p in model.parameters())
    with torch_defaults(dtype, "meta"):
        assert {(p.dtype, p.device.type) for p in MerlotReserve(CONFIG).parameters()} == {(dtype, "meta")}


def test_wide_embeddings_are_xavier_uniform() -> None:
    torch.manual_seed(0)
    embedding = nn.Embedding(500, 832)
    initialize(nn.ModuleList([embedding]), 1.0)
    weight = embedding.weight
    bound = math.sqrt(6 / (500 + 832))
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.999 * bound
    assert abs(weight.std() / (bound / math.sqrt(3)) - 1) < 0.01


@pytest.mark.parametrize("name", ["head.weight", "vision_encoder.embedding.weight"])
def test_scale_multiplies_the_kernels(name: str) -> None:
    torch.manual_seed(0)
    plain = MerlotReserve(CONFIG).get_parameter(name)
    torch.manual_seed(0)
    scaled = MerlotReserve(replace(CONFIG, init_scale=3.0)).get_parameter(name)
    torch.testing.assert_close(scaled, 3 * plain)


def test_init_log_scale_sets_the_temperatures() -> None:
    assert MerlotReserve(replace(CONFIG, init_log_scale=2.5)).contrastive_scales.tolist() == [2.5] * 3


def test_two_threads_construct_in_float32_and_leave_the_default_as_it_was() -> None:
    first_is_inside, second_waits = Event(), Event()
    dtypes = []

    def first() -> None:
        with float32_on_cpu():
            first_is_inside.set()
            second_waits.wait(0.2)

    def second() -> None:
        first_is_inside.wait()
        with float32_on_cpu():
            second_waits.set()
            dtypes.append(torch.get_default_dtype())

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        threads = [Thread(target=first), Thread(target=second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (dtypes, torch.get_default_dtype()) == ([torch.float32], torch.bfloat16)
    finally:
        torch.set_default_dtype(before)
