"""Tensors for one launch of a generated kernel, apart from torch's dispatch: numbers, addresses, and what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lrdsl.backends import reference
from lrdsl.ir.program import Program, Scan
from lrdsl.ir.source import OUTPUTS, Launch, Slot, slots
from lrdsl.ir.symbols import At

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Call:
    """A launch with its tensors. values: the slots; outputs: by name; scratch: zeroed before each launch."""

    launch: Launch
    values: list[int]
    inputs: Mapping[str, Tensor]
    outputs: dict[str, Tensor]
    scratch: Tensor

    def __call__(self) -> None:
        """Launch on torch's stream (on the CPU: run)."""
        on_gpu = self.scratch.is_cuda
        if self.scratch.numel():
            self.scratch.zero_()
        self.launch(self.values, device=self.scratch.device.index or 0,
                    stream=torch.cuda.current_stream().cuda_stream if on_gpu else 0, scratch=self.scratch.data_ptr())

    def solve(self, program: Program) -> dict[str, Tensor]:
        """Launch on outputs full of nan, and add up what comes in parts, as `reference.run` gives it."""
        for output in self.outputs.values():
            output.fill_(float("nan"))
        self()
        return gathered(program, self.outputs)


def coefficients(program: Program) -> frozenset[str]:
    """The sequences in memory that multiply a state as they are."""
    scans = [s for s in program.steps if isinstance(s, Scan) and not s.other]
    return frozenset(e.base for s in scans for m in s.A for e in m if isinstance(e, At)) & frozenset(program.loads)


def numbers(program: Program, B: int, T: int, C: int, device: str, dtype: str = "float32") -> dict[str, Tensor]:
    """Inputs by name: normal, but coefficients within 8/T of 1, so that a step that is lost would show itself."""
    generator = torch.Generator(device).manual_seed(0)
    near = coefficients(program)
    single = {v.name for v in program.vectors if v.shape == "one"}
    columns = {b.name: b.columns for b in program.buffers}
    found = {}
    for slot in slots(program):
        if slot.kind == "vector":
            found[slot.name] = torch.randn(1 if slot.name in single else C, device=device, generator=generator)
        elif slot.kind == "sequence":
            values = torch.randn(B, T, slot.columns * C, device=device, generator=generator)
            for k, column in enumerate(columns[slot.name]):
                if column in near:
                    values[..., k * C:(k + 1) * C].uniform_(1 - 8 / max(T, 16), 1, generator=generator)
            found[slot.name] = values
    return {n: v.to(DTYPES[dtype]) for n, v in found.items()}


def place(program: Program, launch: Launch, inputs: Mapping[str, Tensor], B: int, T: int, C: int) -> Call:
    """A call on these inputs: edges are the constants, there is no boundary."""
    like = next(iter(inputs.values()))
    extent = launch.extent(B, T, C)
    outputs, values = dict[str, Tensor](), list[int]()
    for slot in slots(program):
        tensor = inputs.get(slot.name)
        if slot.kind in OUTPUTS:
            tensor = outputs[slot.name] = like.new_empty(shape(slot, extent.parts, B, T, C))
        strides = 0 if slot.kind == "vector" else len(slot.fields) - 1
        values += [0] * len(slot.fields) if tensor is None else [tensor.data_ptr(), *tensor.stride()[:strides]]
    return Call(launch, [*values, B, T, C], inputs, outputs, like.new_zeros(extent.scratch, dtype=torch.uint8))


def shape(slot: Slot, parts: int, B: int, T: int, C: int) -> tuple[int, ...]:
    """The shape of an output."""
    return {"keep": (B, T, slot.columns * C), "sum": (parts, B, C), "final": (B, slot.depth, C),
            "crossing": (parts, B, slot.depth, C)}[slot.kind]


def gathered(program: Program, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Partial sums added up in float64: sums over parts and batch, crossings over parts."""
    found = {n: t.double() for n, t in outputs.items()}
    for total in program.sums:
        found[total.name] = found[total.name].sum((0, 1) if total.over == "time" else (0, 1, 2))
    for edge in program.edges:
        if edge.crossing:
            found[edge.crossing] = found[edge.crossing].sum(0)
    return found


def wanted(program: Program, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the definition of the Program gives in float64, a slow loop in numpy."""
    edges: dict[str, Tensor | None] = dict.fromkeys(n for e in program.edges for n in (e.start, e.edge) if n)
    tensors = edges | {n: t.cpu().double().numpy() for n, t in inputs.items()}
    return {n: torch.as_tensor(v) for n, v in reference.run(program, tensors).items()}


def difference(got: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> float:
    """The largest difference over the largest magnitude, of the worst output; nan where one is nan."""
    worst = 0.0
    for name, right in want.items():
        found = got[name].to(right.device).reshape(right.shape)
        if right.numel():
            off = float((found - right).abs().max() / right.abs().max().clamp_min(1e-30))
            worst = off if off != off or off > worst else worst
    return worst
