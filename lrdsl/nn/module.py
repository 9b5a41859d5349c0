"""`RNN`: a cell, or cells, as a torch module with the manners of `torch.nn.LSTM`."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..compiler import solved
from ..errors import BadDeclaration, CellError, NotBuilt, ShapeMismatch
from ..frontend.cell import Cell
from ..ir.plan import Sequence as Lagged
from ..ir.solver import Newton
from ..ir.spec import Declared
from ..passes.skips import without_skips
from .calls import Call, read_call, stacked
from .carry import Carry, Window
from .checkpoint import check, run, run_in_pieces
from .newton import JOURNAL, SolverReport
from .parameters import Layer
from .pipeline import pipeline_of
from .planar import dropout
from .products import INTEGERS

States = Tensor | tuple[Tensor, ...]
ARGUMENTS = ("h_0", "carry", "reset", "return_state", "cu_seqlens", "cp")  # of `forward` and `step`; inputs come beside them


class RNN(nn.Module):
    """A recurrent layer of any cell, parallel over time, forward and backward; called like `torch.nn.LSTM`.

        layer = lr.RNN(lr.cells.gilr_lstm, input_size=64, hidden_size=128, num_layers=2)
        output, h_n = layer(x)                      # x (time, batch, input_size), or (batch, time, …) with batch_first

    cell: a cell, or a list of cells, one a layer; each layer reads the first output of the one before it.
    Parameters: `layers.0.forget.weight` (hidden, sum of the operands' sizes in the order of the call), `layers.0.forget.bias`,
    `layers.0.v` of a Vector v, `layers.0.h_init` of a learned initial state h; those of the other direction stand under
    `layers.0.reverse`. A map with a size of its own has that many rows; one that skips has parameters where it must. With a
    state axis: `layers.0.B.weight` (N, operands) of an Affine(axis=N), `layers.0.A` (hidden, N) of a Vector(size=N).
    dtype, or `.to(dtype)`: float32, float64, bfloat16 or float16. With 16 bits, outputs and h_n have them, states are float32
    inside and in a Carry, and Vectors and Scalars may be. In an autocast region x, weights and outputs have the region's dtype,
    as those of torch.nn.LSTM.
    solver: how recurrences are solved that are not linear: "sequential", one step after another, or "newton" (options in
    lr.Newton(…)), by Newton's method on all steps at once, whose gradient is that of the solution; see `solver_report`.
    checkpoint: a number of steps. Only the inputs of each layer are kept for the backward pass, and its states every so many
    steps; the rest is computed again, piece by piece. That costs a second forward pass. It does nothing where no gradient is
    asked for, under torch.compile and under torch.func; packed segments and cells that read ahead it refuses.
    What the cell declares complex is complex here: tensors of a call, h_n, the Carry, parameters. dtype is the real one, and
    complex numbers have its precision: complex64 beside float32, complex128 beside float64.
    Raises NotLinear for a cell that is no linear recurrence where there is no solver, ShapeMismatch for sizes that do not fit,
    DtypeMismatch for a dtype that is complex, BadDeclaration for layers that do not fit on each other, NotBuilt.
    """

    def __init__(self, cell: Cell | Sequence[Cell], input_size: int, hidden_size: int, num_layers: int = 1,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, *, device: Any = None,
                 dtype: torch.dtype | None = None, solver: str | Newton | None = None,
                 checkpoint: int | None = None) -> None:
        super().__init__()
        cells = tuple(solved(c, solver) for c in _check_cells(cell, num_layers))
        _check_fit(cells)
        _check_arguments(input_size, hidden_size, len(cells), dropout)
        self.cells, self.input_size, self.hidden_size, self.num_layers = cells, input_size, hidden_size, len(cells)
        self.batch_first, self.dropout, self.bidirectional = batch_first, float(dropout), bidirectional
        self.cell = cell if isinstance(cell, Cell) else cells
        self.name = cell.name if isinstance(cell, Cell) else f"[{', '.join(c.name for c in cells)}]"
        parts: list[Layer] = []
        features = input_size
        for k in range(self.num_layers):
            parts += self._layer(cells[k], features, k)
            features = sum(part.features[0] for part in parts[-self.directions:])
        self.parts = tuple(parts)
        if checkpoint is not None:
            check(checkpoint, [part.pipeline for part in parts])
        self.checkpoint = checkpoint
        self.layers = nn.ModuleList()
        for k in range(self.num_layers):
            trees = [part.make(device, dtype) for part in self.parts[k * self.directions:(k + 1) * self.directions]]
            for tree in trees[1:]:
                trees[0].register_module("reverse", tree)
            self.layers.append(trees[0])
        # What each sequence is called in a Carry.
        self.names = tuple({key: f"layers.{k}.{'reverse.' if way else ''}{key}" for key in part.pipeline.sequences}
                           for k in range(self.num_layers)
                           for way, part in enumerate(self.parts[k * self.directions:(k + 1) * self.directions]))
        self._solved: tuple[tuple[SolverReport, ...], ...] | None = ()
        self.first = cells[0].spec.names("input")[0]
        self.inputs = {d.name: d for c in reversed(cells) for d in c.spec.of("input")[1:]}
        self.features = self._shared_sizes()
        # Whether h_0 and h_n are stacked over all layers, as in torch.nn.LSTM.
        self.alike = len({tuple((s.depth, s.size) for s in p.pipeline.plan.carried) for p in self.parts}) == 1

    def _layer(self, cell: Cell, first: int, number: int) -> list[Layer]:
        """The parts of a layer, one a direction, whose first input has `first` features."""
        sizes: dict[str, int] = {}
        for k, d in enumerate(cell.spec.of("input")):
            said = d.option("size", "channel")
            # One cell for all layers says what the first one reads.
            if k == 0 and said not in ("channel", first) and (not number or not isinstance(self.cell, Cell)):
                given = f"the layer before gives {first}" if number else f"input_size is {first}"
                raise BadDeclaration(f"{cell.name} says that its input {d.name} has {said} features, {given}", d.where,
                                     "leave size out there" if number else f"give input_size={said}")
            sizes[d.name] = first if k == 0 else d.option("axis", self.hidden_size) if said == "channel" else int(said)
        spec = without_skips(cell.spec, sizes, self.hidden_size)
        if self.bidirectional and any(d.name.split(".")[0] == "reverse" for d in spec.declared):
            raise BadDeclaration(f"{cell.name} declares the name reverse, which a bidirectional module needs",
                                 spec["reverse"].where, "give it another name")
        ways = [spec, *([spec.mirrored()] if self.bidirectional else [])]
        return [Layer(pipeline_of(way), sizes, self.hidden_size) for way in ways]

    def _shared_sizes(self) -> dict[str, int]:
        """Features of the inputs that are given by name; layers that read the same one must agree."""
        sizes: dict[str, int] = {}
        for part in self.parts:
            for d in part.pipeline.spec.of("input")[1:]:
                if sizes.setdefault(d.name, part.sizes[d.name]) != part.sizes[d.name]:
                    raise ShapeMismatch(f"the layers of {self.name} read the input {d.name} with {sizes[d.name]} and with "
                                        f"{part.sizes[d.name]} features", d.where, "make the sizes equal, or rename one")
        return sizes

    def declared(self, name: str) -> Declared:
        """The declaration of an input."""
        return self.inputs[name] if name in self.inputs else self.cells[0].spec[name]

    def trees(self) -> list[nn.Module]:
        """The parameters of every layer in every direction, in the order of `parts` and of h_n."""
        found: list[Any] = []
        for tree in self.layers:
            found += [tree, tree._modules["reverse"]] if self.bidirectional else [tree]
        return found

    @property
    def carried(self) -> tuple[Lagged, ...]:
        """The states of the first layer's h_n in order, and of every layer's where all have one cell."""
        return self.parts[0].pipeline.plan.carried

    @property
    def directions(self) -> int:
        """1, or 2 where bidirectional."""
        return 2 if self.bidirectional else 1

    def forward(self, x: Tensor | PackedSequence, /, h_0: States | Carry | None = None, *, reset: Tensor | None = None,
                return_state: bool = False, cu_seqlens: Tensor | None = None, cp: Any = None, **inputs: Any) -> Any:
        """output, h_n (or output, Carry with return_state=True).

        x: (T, B, input_size), (B, T, input_size) with batch_first, or (T, input_size); the cell's other Inputs by name, in the
        same layout. Integers without the features, (T, B), mean one-hot vectors, and dense maps look their rows up.
        h_0: the states that are read at a lag, (layers × directions, B, hidden) each, then k when the order is
        above 1, then N for a State(size=N); one tensor or a tuple; where the cells of a list carry different states, a tuple of
        that, one entry a layer; or a Carry. reset: bool, x's shape without features: a boundary between t-1 and t.
        cu_seqlens: int32 or int64 (n + 1,), from 0 to T: the borders of n segments that lie one after another in a batch of 1.
        They are boundaries as those of reset, and each segment has its own edges: h_0, h_n and a Carry have n where B stood.
        A PackedSequence means the same: h_0 and h_n are in the order of the unsorted sequences, and the output is packed as x
        is. Its samples are copied into the order of segments and back; nothing is padded.
        output: (T, B, hidden × directions); several outputs of the cell come as it returns them, in a tuple or a dict. h_n: the
        last values in the direction of each state's own run, at t = 0 where it runs from the right; that is also the side of
        h_0. A cell whose states run both ways has no Carry: a CellError.
        Tensors are read where they lie, whatever their strides, if the features of a sample are next to each other;
        otherwise they are copied first.
        Raises ShapeMismatch, DtypeMismatch, CellError, NotBuilt.
        """
        if cp is not None:
            raise NotBuilt("cp= is part of the language but not built yet", None, "run on one device")
        if return_state or isinstance(h_0, Carry):
            for part in self.parts:
                part.pipeline.check_chunks()
        call = read_call(self, x, h_0, reset, cu_seqlens, inputs)
        outputs, after = self._run(call, return_state)
        result = self.parts[-1].pipeline.returned([call.outward(o) for o in outputs])
        if return_state:
            return result, call.carry(after)
        return result, stacked(self, after, call.rows_shown, outputs[0].dtype)

    def step(self, x_t: Tensor, /, carry: States | Carry | None = None, *, reset: Tensor | None = None,
             **inputs: Tensor) -> tuple[Any, Carry]:
        """One step: (y_t, carry). x_t (B, input_size) or (input_size,), integers (B,) or (); reset (B,) or ().

        Raises CellError for a cell that looks ahead, or whose states run both ways.
        """
        for pipeline in (part.pipeline for part in self.parts):
            if self.bidirectional or pipeline.reverse or pipeline.looks_ahead:
                both = pipeline.plan.both_ways
                way = f"runs both ways ({both})" if both else "runs in both directions" if self.bidirectional else \
                    "runs from the right" if pipeline.reverse else f"reads {pipeline.looks_ahead[0]} ahead"
                raise CellError(f"{pipeline.spec.name} {way}, so that it cannot go step by step", pipeline.spec.where,
                                "give it the whole sequence")
        time = 1 if self.batch_first and x_t.dim() == (1 if x_t.dtype in INTEGERS else 2) else 0
        y, after = self(x_t.unsqueeze(time), carry, reset=None if reset is None else reset.unsqueeze(time),
                        return_state=True, **{n: v.unsqueeze(time) for n, v in inputs.items()})
        if isinstance(y, dict):
            return {name: o.squeeze(time) for name, o in y.items()}, after
        return (tuple(o.squeeze(time) for o in y) if isinstance(y, tuple) else y.squeeze(time)), after

    def _run(self, call: Call, return_state: bool) -> tuple[tuple[Tensor, ...], list[dict[str, Window]]]:
        """All layers: outputs (B, T, …) and, for each layer and direction, what it leaves."""
        x, after = call.x, []
        outputs: tuple[Tensor, ...] = ()
        trees, solved, compiling = self.trees(), [], torch.compiler.is_compiling()
        one_pass = run if self.checkpoint is None else functools.partial(run_in_pieces, self.checkpoint)
        for k in range(self.num_layers):
            ways: list[tuple[Tensor, ...]] = []
            for direction in range(self.directions):
                at = k * self.directions + direction
                part, tree, given = self.parts[at], trees[at], call.windows[at]
                first, *others = part.inputs
                inputs = {first: x, **{n: call.inputs[n] for n in others}, **part.beside(tree, x, self.training)}
                # A reverse run ends on the sample at 0; only a Carry goes on to the boundary before it.
                reset = call.reset if return_state or not part.pipeline.reverse else call.reset_inside
                listening = bool(part.pipeline.solved) and not compiling
                told = JOURNAL.total if listening else 0
                found, left = one_pass(part, tree, inputs, given, call.rows, reset, return_state, call.segments)
                solved.append(JOURNAL.since(told) if listening else ())
                ways.append(found)
                after.append(left)
            outputs = ways[0] if len(ways) == 1 else tuple(torch.cat(pair, 2) for pair in zip(*ways, strict=True))
            x = outputs[0]
            if self.dropout and k < self.num_layers - 1:
                x = dropout(x, self.dropout, self.training)
        if any(part.pipeline.solved for part in self.parts):  # torch.export wants modules that do not change
            self._solved = None if compiling else tuple(solved)
        return outputs, after

    def solver_report(self) -> dict[str, tuple[SolverReport, ...]]:
        """What Newton's method did in the last call, for each layer and direction by the name of its parameters: iterations,
        residual, tolerance, and where it did not converge why. Empty without it, and before the first call.

        Of a module that torch.compile runs these are the last reports of passes with the names of its own, in this thread.
        """
        names = [f"layers.{k}{'.reverse' * way}" for k in range(self.num_layers) for way in range(self.directions)]
        found = self._solved
        if found is None:
            rest = list(JOURNAL.latest([n for part in self.parts for n in part.pipeline.solved]))
            found = tuple(tuple(rest.pop(0) for _ in part.pipeline.solved if rest) for part in self.parts)
        return {name: reports for name, reports in zip(names, found, strict=False) if reports}

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        for part, tree in zip(self.parts, self.trees(), strict=True):
            part.draw(tree)

    def flatten_parameters(self) -> None:
        """Nothing to do; here for code that was written for `torch.nn.LSTM`."""

    def __repr__(self) -> str:
        return f"RNN({self.extra_repr()})"

    def extra_repr(self) -> str:
        said = [self.name, str(self.input_size), str(self.hidden_size)]
        said += [f"num_layers={self.num_layers}"] if self.num_layers != 1 and isinstance(self.cell, Cell) else []
        options = ("batch_first", "dropout", "bidirectional", "checkpoint")
        said += [f"{n}={getattr(self, n)}" for n in options if getattr(self, n)]
        return ", ".join(said)


def _check_cells(cell: Any, num_layers: Any) -> tuple[Cell, ...]:
    """The cell of each layer."""
    if not isinstance(num_layers, int) or isinstance(num_layers, bool) or num_layers <= 0:
        raise BadDeclaration(f"num_layers is a positive integer, not {num_layers!r}")
    cells = tuple(cell) if isinstance(cell, Sequence) else (cell,)
    if wrong := [c for c in cells if not isinstance(c, Cell)]:
        raise BadDeclaration(f"lr.RNN runs cells, not {wrong[0]!r}", None, "declare one with @lr.cell, or take one of lr.cells")
    if not isinstance(cell, Sequence):
        return cells * num_layers
    if not cells or num_layers not in (1, len(cells)):
        raise BadDeclaration(f"lr.RNN was given a list of {len(cells)} cells and num_layers={num_layers}", None,
                             "give one cell a layer, and leave num_layers out")
    return cells


def _check_fit(cells: Sequence[Cell]) -> None:
    """Raise BadDeclaration for inputs named as what every call takes, and where a layer reads a complex output as real."""
    for cell in cells:
        for d in cell.spec.of("input")[1:]:
            if d.name in ARGUMENTS:
                raise BadDeclaration(f"{cell.name} calls an input {d.name}, and a call of a module has an argument of that "
                                     "name", d.where, "give it another name")
    for below, above in itertools.pairwise(cells):
        (name, output), first = below.spec.outputs[0], above.spec.of("input")[0]
        if output.complex and not first.complex:
            raise BadDeclaration(f"the first output of {below.name}, {name}, is complex, and the next layer reads it as the "
                                 f"real input {first.name}", first.where, f"return lr.re({name}), or declare {first.name}: "
                                 "lr.Input = lr.Input(complex=True)")


def _check_arguments(input_size: int, hidden_size: int, num_layers: int, dropout: float) -> None:
    for name, value in (("input_size", input_size), ("hidden_size", hidden_size)):
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise BadDeclaration(f"{name} is a positive integer, not {value!r}")
    if not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
        raise BadDeclaration(f"dropout is a probability between 0 and 1, not {dropout!r}")
    if dropout and num_layers == 1:
        warnings.warn(f"dropout={dropout} acts between layers, and there is one: it does nothing", stacklevel=3)
