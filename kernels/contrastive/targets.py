"""Which candidates are positives of which vector, and with what weight: the rows of a sparse matrix."""

from __future__ import annotations

from typing import NamedTuple

import torch

from reserve_kernels.checks import FLOATING, check_same_device, check_tensor


class Targets(NamedTuple):
    """Label weights as sparse rows (CSR): row i has the entries offsets[i] to offsets[i + 1].

    A row may have no entry or many, in any order, but none twice.

        >>> import torch
        >>> # The positives of x[0] are y[0] and y[1], that of x[1] is y[1].
        >>> targets = Targets(torch.tensor([0, 2, 3]), torch.tensor([0, 1, 1]))
        >>> targets.rows()
        tensor([0, 0, 1])
    """

    offsets: torch.Tensor
    """int64 [rows + 1]: 0, then the number of entries up to the end of each row."""
    columns: torch.Tensor
    """int64 [entries]: the candidate of each entry."""
    weights: torch.Tensor | None = None
    """Floating point [entries], without a gradient. None: see `contrastive_loss`."""

    def rows(self) -> torch.Tensor:
        """int64 [entries]: the row of each entry. It needs no values, so that the host does not wait for a GPU."""
        places = torch.arange(self.columns.shape[0], device=self.columns.device)
        return torch.searchsorted(self.offsets, places, right=True) - 1


def shares(rows: torch.Tensor, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Weights [entries] that are equal within each of `count` rows and add up to 1."""
    ones = torch.ones(rows.shape, dtype=dtype, device=rows.device)
    return ones / ones.new_zeros(count).index_add(0, rows, ones)[rows]


def check_targets(name: str, targets: object, x: torch.Tensor) -> Targets:
    """Returns `targets` of the rows of x.

    Their values are for `check_values`, inside the ops: a compiler has none. Raises TypeError or ValueError.
    """
    if not isinstance(targets, Targets):
        raise TypeError(f"{name} must be reserve_kernels.Targets; got {type(targets).__name__}")
    offsets, columns, weights = targets
    rows, parts = x.shape[0], {"offsets": offsets, "columns": columns}
    for part, value in parts.items():
        check_tensor(f"{name}.{part}", value, (torch.int64,))
    if weights is not None:
        parts["weights"] = check_tensor(f"{name}.weights", weights, FLOATING)
        if weights.requires_grad:
            raise ValueError(f"{name}.weights get no gradient: detach them")
    for part, value in parts.items():
        check_same_device(f"{name}.{part}", value, "x", x)
        expected = (rows + 1,) if part == "offsets" else (columns.numel(),)
        if tuple(value.shape) != expected:
            raise ValueError(f"{name}.{part} must have shape {list(expected)}; got {list(value.shape)}")
    return targets


def check_values(name: str, targets: Targets, candidates: int, fractions: bool) -> None:
    """Raises ValueError if the values of `targets` over `candidates` are wrong; `fractions`: weights are from 0 to 1.

    On the CPU only: on a GPU the host would wait for them.
    """
    if targets.offsets.device.type != "cpu":
        return
    offsets, columns, weights = targets
    steps = offsets.diff()
    if offsets[0] != 0 or (steps < 0).any() or offsets[-1] != len(columns):
        raise ValueError(f"{name}.offsets must rise from 0 to the number of columns, {len(columns)}")
    wrong = columns[(columns < 0) | (columns >= candidates)]
    if len(wrong):
        raise ValueError(f"{name}.columns must be from 0 to {candidates - 1}; got {wrong[0]}")
    places = targets.rows() * candidates + columns
    ordered = places.sort().values
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        row, column = divmod(int(twice[0]), candidates)
        raise ValueError(f"{name} must have each entry once; got column {column} twice in row {row}")
    if fractions and weights is not None:
        wrong = weights[~((weights >= 0) & (weights <= 1))]
        if len(wrong):
            raise ValueError(f"{name}.weights must be from 0 to 1 for kind='sigmoid'; got {wrong[0].item():g}")
