"""No call in a training step makes the host wait for a GPU: every suspicious one is listed with its reason.

What runs on a GPU is checked there by test_fit_cuda.py.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    *(f"reserve/model/{name}.py" for name in ("encoders", "finetuned", "merlot_reserve", "rotary", "transformer")),
    *("reserve/tasks/pretrain/objective.py", "reserve/tasks/pretrain/task.py"),
    *(
        f"reserve/tasks/{name}.py"
        for name in ("vcr/task", "tvqa/batch", "tvqa/task", "kinetics600/batch", "kinetics600/task")
    ),
    *(
        f"reserve/train/{name}.py"
        for name in ("finite_check", "fit", "not_finite", "optimizer", "parallel", "step", "throughput", "training")
    ),
]
"""What a training step runs, besides the ops."""
OPS = ("adamw", "attention", "contrastive", "quick_gelu")
NOT_IN_A_STEP = {"kernels/attention/tune.py"}

METHODS = {"item", "tolist", "cpu", "numpy", "nonzero", "unique", "masked_select", "repeat_interleave", "synchronize"}
"""Methods that read a tensor's values, or whose result's size depends on them."""
CASTS = {"bool", "float", "int"}

ALLOWED = {
    ("kernels/adamw/__init__.py", "BF16AdamW.step", "int(group['seed'])"): "a Python number",
    ("kernels/adamw/__init__.py", "BF16AdamW.step", "int(self.state[parameter]['step'])"): "on the CPU only",
    ("kernels/adamw/__init__.py", "BF16AdamW._update", "float(group['lr'])"): "a Python number",
    ("kernels/adamw/__init__.py", "BF16AdamW._update", "float(beta1)"): "a Python number",
    ("kernels/adamw/__init__.py", "BF16AdamW._update", "float(beta2)"): "a Python number",
    ("kernels/adamw/__init__.py", "BF16AdamW._update", "float(group['eps'])"): "a Python number",
    ("kernels/adamw/__init__.py", "BF16AdamW._update", "float(group['weight_decay'])"): "a Python number",
    ("kernels/adamw/options.py", "plain_options", "float(group[name])"): "a Python number, when saving",
    ("kernels/adamw/options.py", "plain_options", "float(beta)"): "a Python number, when saving",
    ("kernels/adamw/options.py", "plain_options", "bool(group[name])"): "a Python number, when saving",
    ("kernels/adamw/options.py", "plain_options", "int(group['seed'])"): "a Python number, when saving",
    ("kernels/attention/arguments.py", "checked_scale", "float(scale)"): "a Python number",
    ("kernels/attention/arguments.py", "checked_scale", "float(head_size ** (-0.5))"): "a Python number",
    ("kernels/attention/packing.py", "_check_starts", "cu_seqlens.tolist()"): "on the CPU only",
    ("kernels/attention/reference.py", "sequences", "starts.tolist()"): "never chosen on a GPU",
    ("kernels/attention/reference.py", "for_each_head", "kv.repeat_interleave(heads // kv.shape[1], dim=1)"): (
        "a Python number of repeats"
    ),
    ("kernels/contrastive/__init__.py", "_checked_scalar", "float(value)"): "a Python number",
    ("kernels/contrastive/native.py", "NativePasses._factor", "log_scale.item()"): "on the CPU only",
    ("kernels/contrastive/passes.py", "bounded_by", "log_scale.item()"): "on the CPU only",
    (
        "kernels/contrastive/passes.py",
        "bounded_by",
        "torch.linalg.vector_norm(side, dim=1, dtype=log_scale.dtype).amax().item()",
    ): "on the CPU only",
    ("kernels/contrastive/sigmoid.py", "Piece._find", "int(of_rows[0])"): "on the CPU only",
    ("kernels/contrastive/sigmoid.py", "Piece._find", "int(of_rows[-1])"): "on the CPU only",
    (
        "kernels/contrastive/sigmoid.py",
        "Piece._find",
        "torch.repeat_interleave(torch.arange(count, device='cpu'), of_rows.diff())",
    ): "on the CPU only",
    ("kernels/contrastive/targets.py", "check_values", "int(twice[0])"): "on the CPU only",
    ("kernels/contrastive/targets.py", "check_values", "wrong[0].item()"): "on the CPU only",
    ("kernels/contrastive/gather.py", "exchange_counts", "everyone.view(-1, len(mine)).T.tolist()"): (
        "counts that travel between hosts; only a group without gloo sends them through GPUs"
    ),
    ("reserve/model/merlot_reserve.py", "MerlotReserve._pack_videos", "subsegments.cpu()"): "inference",
    ("reserve/tasks/kinetics600/task.py", "_probabilities", "probabilities.cpu()"): "evaluation",
    ("reserve/tasks/kinetics600/task.py", "_probabilities", "probabilities.cpu().numpy()"): "evaluation",
    ("reserve/tasks/kinetics600/task.py", "_probabilities", "batch.is_readable.cpu()"): "evaluation",
    ("reserve/tasks/kinetics600/task.py", "_probabilities", "batch.is_readable.cpu().numpy()"): "evaluation",
    ("reserve/tasks/tvqa/task.py", "Tvqa.evaluate_split", "int(answers[kind][row])"): "evaluation",
    ("reserve/tasks/tvqa/task.py", "weights_digest", "weight.numpy()"): "evaluation",
    ("reserve/tasks/tvqa/task.py", "weights_digest", "model.proj.weight.detach().float().cpu()"): "evaluation",
    ("reserve/tasks/tvqa/task.py", "_answers", "probabilities[kind].argmax(-1).cpu()"): "evaluation",
    ("reserve/tasks/tvqa/task.py", "_answers", "probabilities[kind].argmax(-1).cpu().numpy()"): "evaluation",
    ("reserve/tasks/vcr/task.py", "_probabilities", "vcr_logits(model, batch).softmax(-1).cpu()"): "evaluation",
    ("reserve/tasks/vcr/task.py", "_probabilities", "vcr_logits(model, batch).softmax(-1).cpu().numpy()"): "evaluation",
    ("reserve/model/merlot_reserve.py", "MerlotReserve._pack_videos", "subsegments.cpu().numpy()"): "inference",
    ("reserve/model/merlot_reserve.py", "MerlotReserve._read_ids", "int(ids.min())"): "inference",
    ("reserve/model/merlot_reserve.py", "MerlotReserve._read_ids", "int(ids.max())"): "inference",
    ("reserve/model/merlot_reserve.py", "MerlotReserve._read_ids", "ids.cpu()"): "inference",
    ("reserve/model/merlot_reserve.py", "MerlotReserve._read_ids", "ids.cpu().numpy()"): "inference",
    ("reserve/train/training.py", "set_up", "bool(list_checkpoints(run))"): "before the first step",
    ("reserve/train/finite_check.py", "FiniteCheck.look", "self._counts.tolist()"): "once a line of metrics",
    ("reserve/train/not_finite.py", "keep_batch", "tensor.cpu()"): "after a step that was not finite",
    (
        "reserve/train/step.py",
        "_MicroBatches.whole_gradient",
        "torch.randint(1 << 62, (len(seeds),), device='cpu').tolist()",
    ): "on the CPU",
    (
        "reserve/train/step.py",
        "micro_batch_seed",
        "int(np.random.SeedSequence([seed, step, place]).generate_state(1, np.uint64)[0])",
    ): "NumPy",
    ("reserve/train/step.py", "mean_over_ranks", "mean.tolist()"): "once a line of metrics",
}
"""Calls that do not wait, or not in every step: file, function, code, and why."""


def audited() -> list[str]:
    ops = [path.relative_to(ROOT).as_posix() for op in OPS for path in (ROOT / "kernels" / op).glob("*.py")]
    return sorted({*FILES, *ops} - NOT_IN_A_STEP)


def suspicious_calls(tree: ast.AST, scope: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Calls that may wait for a GPU, as the name of their function and their code."""
    for node in ast.iter_child_nodes(tree):
        inside = (*scope, node.name) if isinstance(node, ast.FunctionDef | ast.ClassDef) else scope
        if isinstance(node, ast.Call):
            called = node.func
            method = isinstance(called, ast.Attribute) and called.attr in METHODS
            values = [argument for argument in node.args if not isinstance(argument, ast.Constant)]
            cast = isinstance(called, ast.Name) and called.id in CASTS and bool(values)
            if method or cast:
                yield ".".join(scope), ast.unparse(node)
        yield from suspicious_calls(node, inside)


@pytest.mark.parametrize("file", audited())
def test_every_suspicious_call_has_its_reason(file):
    found = {(file, *call) for call in suspicious_calls(ast.parse((ROOT / file).read_text("utf-8")))}
    assert found == {call for call in ALLOWED if call[0] == file}


def test_the_list_names_no_other_file():
    assert {file for file, _, _ in ALLOWED} <= set(audited())


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("x.item()", [("", "x.item()")]),
        ("def f(x):\n    return bool((x > 0).any())", [("f", "bool((x > 0).any())")]),
        ("class A:\n    def f(self):\n        return x.max().tolist()", [("A.f", "x.max().tolist()")]),
        ("torch.cuda.synchronize()", [("", "torch.cuda.synchronize()")]),
        ("float('-inf'), x.float(), len(x)", []),
    ],
)
def test_calls_are_found(code, found):
    assert list(suspicious_calls(ast.parse(code))) == found
