"""GradCache: micro-batches with the gradient of the whole batch, one graph at a time."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from reserve.config import Config
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.task import Pretrain
from reserve.train.distributed import Ranks
from reserve.train.fit import fit
from reserve.train.parallel import parallelize
from reserve.train.step import micro_batch_seed, train_step
from tests.helpers.classifier_task import ClassifierConfig, Classify
from tests.helpers.random_pretrain import random_run

CPU = Ranks(0, 1, torch.device("cpu"))
TASK, CONFIG = random_run(batch_size=4)


def _step(parts: int, task: Pretrain = TASK, seed: int | None = 0, watch=lambda vectors: None, **train):
    """The gradients and metrics of one step on four examples in micro-batches, and how often the model ran."""
    config: Config = replace(CONFIG, train=replace(CONFIG.train, accumulate=parts, **train))
    torch.manual_seed(0)
    model = task.build_model()
    examples = task.training_set(None, config.train)
    size = 4 // parts
    batches = [task.collate([examples[0, i] for i in range(p * size, (p + 1) * size)]) for p in range(parts)]

    def vectors(inner, batch):
        found = task.vectors(inner, batch)
        watch(found)
        return found

    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    whole = lambda found: task.vectors_loss(found, None)  # noqa: E731
    values = train_step(
        parallelize(model, vectors, CPU), optimizer, batches, config, CPU, step=seed, vectors_loss=whole
    )
    return {name: p.grad for name, p in model.named_parameters()}, values


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_give_the_gradient_of_the_whole_batch(parts):
    expected, reported = _step(1)
    ours, values = _step(parts)
    assert values.keys() == reported.keys() >= {"loss", "imgs_to_audio", "span_random_text", "gradient_norm"}
    for name in reported:
        torch.testing.assert_close(values[name], reported[name], rtol=1e-5, atol=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_without_it_candidates_are_those_of_a_micro_batch():
    """So the test above can fail."""
    whole = _step(1)[1]["loss"]
    batch = TASK.collate([TASK.training_set(None, CONFIG.train)[0, i] for i in range(2)])
    torch.manual_seed(0)
    half = TASK.loss(TASK.build_model(), batch, None).total
    assert float(whole - half.detach()) > 1


def test_the_graph_of_one_micro_batch_is_alive_at_a_time():
    graphs, alive = [], []

    def watch(vectors):
        with_graph = [v for v in vectors.values() if v.requires_grad]
        alive.append(sum(graph() is not None for graph in graphs))
        if with_graph:
            graphs.append(_weak(with_graph[0].grad_fn))

    _step(4, watch=watch)
    assert len(graphs) == 4
    assert alive == [0] * 8


def _weak(node):
    """A reference that is None once autograd has let go of the node: a tensor hook's closure lives as long as it."""

    class Token:
        pass

    token = Token()
    node.metadata["token"] = token
    return weakref.ref(token)


class Dropping(MerlotReserve):
    def forward(self, inputs):
        outputs = super().forward(inputs)
        return outputs._replace(joint=F.dropout(outputs.joint, 0.3))


class WithDropout(type(TASK)):
    def build_model(self):
        return Dropping(self.model)


@pytest.mark.parametrize("step", [7, None])
def test_both_passes_draw_the_same_random_numbers(step):
    """Else the gradients would be those of other vectors."""
    task = WithDropout(data=TASK.data, model=TASK.model)
    seen: list[torch.Tensor] = []
    _step(2, task, step, watch=lambda vectors: seen.append(vectors["stuff_to_span.x"].detach().clone()))
    first, second, again, again_second = seen
    assert torch.equal(first, again)
    assert torch.equal(second, again_second)
    assert not torch.equal(first, second)


def test_random_numbers_depend_on_seed_step_and_place_alone():
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**63 - 1, 750_000, 511)]
    assert len({micro_batch_seed(*key) for key in keys}) == len(keys)
    assert micro_batch_seed(0, 1, 0) == micro_batch_seed(0, 1, 0)


def test_a_task_without_a_contrastive_loss_refuses_it(tmp_path):
    task = Classify(ClassifierConfig(hidden_size=64, vocab_size=32))
    with pytest.raises(ValueError, match=r"train.grad_cache is for contrastive losses, which classify does not have"):
        fit(task, tmp_path, replace(CONFIG, train=replace(CONFIG.train, grad_cache=True)))
    assert not any(tmp_path.iterdir()), "refused after the run's folder was written"
