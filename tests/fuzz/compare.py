"""Values and derivatives of a call, and how far those of two calls may be apart.

A tensor's error is its largest difference over its largest number; or over a tenth of the largest number of its kind (values,
gradients …), where that is more, because sums cancel. How much of it rounding explains is measured, not guessed:
the text itself is run in float32 and in float64, and its worst tensor says how the cell multiplies rounding errors. A call may
do that, SLACK times over, in units of its own dtype. For 16 bits the text is run with what memory keeps rounded to them:
inputs, states, products of maps, outputs, and the gradients of these. Cells whose numbers come near a kink are left out for
that dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .meaning import NEAR, Watch
from .problems import Call, Problem, Tensors

UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
NARROW = (torch.bfloat16, torch.float16)
SLACK = 8.0  # times the rounding of the text
LEAST = {d: 4.0 if d in NARROW else 64.0 for d in UNIT}  # roundings that are always allowed
MOST = {d: 0.1 / u if d in NARROW else 1e5 for d, u in UNIT.items()}  # with more of the text's own, nothing can be said
SAME = (torch.float32, torch.float64)  # that see the same numbers
MARGIN = {torch.float32: NEAR * 100, torch.float64: NEAR * 1e-6, **{d: 8 * UNIT[d] for d in NARROW}}


def results(call: Call, problem: Problem, dtype: torch.dtype) -> Tensors:
    """Outputs `out0` …, `h:final`; gradients `d x` of their weighed sum; and, as the problem asks for, `dd x`, those of the
    gradients' weighed sum, or the tangents `out0 dot`."""
    leaves = {n: x.to(dtype.to_complex() if x.is_complex() else dtype).requires_grad_() for n, x in problem.tensors.items()}
    found = call(leaves)
    loss = sum((y * problem.drawn(n, y)).real.sum() for n, y in found.items() if n not in problem.silent)
    second = problem.level == "second"
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        return {n: y.detach() for n, y in found.items()}
    d = _gradients(loss, leaves, second)
    every = {**found, **{f"d {n}": g for n, g in d.items()}}
    if second:
        total = sum((g * problem.drawn(f"d {n}", g)).real.sum() for n, g in d.items())
        constant = not (isinstance(total, Tensor) and total.requires_grad)
        every |= {f"dd {n}": g for n, g in ({n: torch.zeros_like(x) for n, x in leaves.items()} if constant else
                                            _gradients(total, leaves, False)).items()}
    if problem.level == "forward":
        with forward_ad.dual_level():
            duals = {n: forward_ad.make_dual(x.detach(), problem.drawn(f"dot {n}", x)) for n, x in leaves.items()}
            for n, y in call(duals).items():
                tangent = forward_ad.unpack_dual(y).tangent
                every[f"{n} dot"] = torch.zeros_like(y) if tangent is None else tangent
    return {n: y.detach() for n, y in every.items()}


def _gradients(of: Tensor, leaves: Mapping[str, Tensor], graph: bool) -> Tensors:
    found = torch.autograd.grad(of, list(leaves.values()), create_graph=graph, allow_unused=True)
    return {n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(leaves.items(), found, strict=True)}


@dataclass(frozen=True)
class Truth:
    """What the text gives in float64, how much rounding it allows, in units of the dtype, and the dtypes it can judge."""

    want: Tensors
    roundings: float
    dtypes: frozenset[torch.dtype]

    def worst(self, got: Mapping[str, Tensor], dtype: torch.dtype) -> tuple[float, str]:
        """The largest error in units of what is allowed, and the result that has it; inf for another shape, a nan."""
        assert self.want.keys() == got.keys(), (sorted(self.want), sorted(got))
        allowed = UNIT[dtype] * (SLACK * self.roundings + LEAST[dtype])
        ratios = {n: error / allowed for n, error in _errors(got, self.want).items()}
        name = max(ratios, key=ratios.__getitem__)
        return ratios[name], name


def _errors(got: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> dict[str, float]:
    """The error of each result; inf for another shape, a nan."""
    largest = {n: float(_wide(y).abs().max()) if y.numel() else 0.0 for n, y in want.items()}
    of_kind = {_kind(n): max(v for m, v in largest.items() if _kind(m) == _kind(n)) for n in want}
    found = {}
    for n, y in want.items():
        apart = float((_wide(got[n]) - _wide(y)).abs().max()) if y.numel() and got[n].shape == y.shape else 0.0
        scale = max(largest[n], of_kind[_kind(n)] / 10, 1e-3)
        found[n] = apart / scale if got[n].shape == y.shape and apart == apart else float("inf")
    return found


def _wide(y: Tensor) -> Tensor:
    return y.to(torch.complex128 if y.is_complex() else torch.float64)


def _kind(name: str) -> str:
    return "dot" if name.endswith(" dot") else name.split(" ")[0] if " " in name else ""


def truth(call: Callable[[Problem], Call], watch: Watch, problem: Problem) -> Truth:
    """Run the text of a problem as it is and rounded: in float32; or, of one in 16 bits, with all that is stored rounded."""
    storage = problem.storage
    want = results(call(replace(problem, storage=None)), problem, torch.float64)
    near = watch.least
    rounded = results(call(problem), problem, torch.float64 if storage else torch.float32)
    unit = UNIT[storage or torch.float32]
    roundings = max(_errors(rounded, want).values()) / unit
    finite = all(bool(y.isfinite().all()) and float(y.abs().max() if y.numel() else 0) < 1e6 for y in want.values())
    judged = [d for d in ([storage] if storage else SAME) if near > MARGIN[d] and roundings < MOST[d] and finite]
    return Truth(want, roundings, frozenset(judged))
