"""`RNN`: a cell as a torch module with the manners of `torch.nn.LSTM`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadDeclaration, CellError, NotBuilt
from ..frontend.cell import Cell
from ..ir.plan import Sequence as Lagged
from .calls import Call, read_call, stacked
from .carry import NONE, Carry, Window
from .parameters import Layer
from .pipeline import Pipeline, pipeline_of

States = Tensor | tuple[Tensor, ...]


class RNN(nn.Module):
    """A recurrent layer of any cell, parallel over time, forward and backward; called like `torch.nn.LSTM`.

        layer = lr.RNN(lr.cells.gilr_lstm, input_size=64, hidden_size=128, num_layers=2)
        output, h_n = layer(x)                      # x (time, batch, input_size), or (batch, time, …) with batch_first

    Parameters: `layers.0.forget.weight` (hidden, sum of the operands' sizes in the order of the call), `layers.0.forget.bias`,
    `layers.0.v` of a Vector v, `layers.0.h_init` of a learned initial state h; those of the other direction stand under
    `layers.0.reverse`. With a state axis: `layers.0.B.weight` (N, operands) of an Affine(axis=N), `layers.0.A` (hidden, N) of a
    Vector(size=N).
    Raises NotLinear for a cell that is no linear recurrence, ShapeMismatch for sizes that do not fit, NotBuilt.
    """

    def __init__(self, cell: Cell, input_size: int, hidden_size: int, num_layers: int = 1, batch_first: bool = False,
                 dropout: float = 0.0, bidirectional: bool = False, *, device: Any = None,
                 dtype: torch.dtype | None = None, solver: str | None = None) -> None:
        super().__init__()
        _check_arguments(cell, input_size, hidden_size, num_layers, dropout, solver)
        self.cell, self.input_size, self.hidden_size, self.num_layers = cell, input_size, hidden_size, num_layers
        self.batch_first, self.dropout, self.bidirectional = batch_first, float(dropout), bidirectional
        ways = [pipeline_of(cell.spec)] + ([pipeline_of(cell.spec.mirrored())] if bidirectional else [])
        if bidirectional and any(d.name.split(".")[0] == "reverse" for d in cell.spec.declared):
            raise BadDeclaration(f"{cell.name} declares the name reverse, which a bidirectional module needs",
                                 cell.spec["reverse"].where, "give it another name")
        sizes = [self._sizes(ways[0], input_size if k == 0 else hidden_size * len(ways)) for k in range(num_layers)]
        self.parts = tuple(Layer(pipeline, sizes[k], hidden_size) for k in range(num_layers) for pipeline in ways)
        self.layers = nn.ModuleList()
        for k in range(num_layers):
            trees = [part.make(device, dtype) for part in self.parts[k * len(ways):(k + 1) * len(ways)]]
            for tree in trees[1:]:
                trees[0].register_module("reverse", tree)
            self.layers.append(trees[0])
        # What each sequence is called in a Carry.
        self.names = tuple({key: f"layers.{k}.{'reverse.' if way else ''}{key}" for key in pipeline.sequences}
                           for k in range(num_layers) for way, pipeline in enumerate(ways))

    def _sizes(self, pipeline: Pipeline, first: int) -> dict[str, int]:
        """Features of each input: the declared ones, else the hidden size; of the first one `first`."""
        sizes: dict[str, int] = {}
        for k, d in enumerate(pipeline.spec.of("input")):
            said = d.option("size", "channel")
            sizes[d.name] = first if k == 0 else d.option("axis", self.hidden_size) if said == "channel" else int(said)
        return sizes

    def trees(self) -> list[nn.Module]:
        """The parameters of every layer in every direction, in the order of `parts` and of h_n."""
        found: list[Any] = []
        for tree in self.layers:
            found += [tree, tree._modules["reverse"]] if self.bidirectional else [tree]
        return found

    @property
    def carried(self) -> tuple[Lagged, ...]:
        """The states of h_n in order."""
        return self.parts[0].pipeline.plan.carried

    @property
    def directions(self) -> int:
        """1, or 2 where bidirectional."""
        return 2 if self.bidirectional else 1

    def forward(self, x: Tensor, h_0: States | Carry | None = None, *, reset: Tensor | None = None,
                return_state: bool = False, cu_seqlens: Tensor | None = None, cp: Any = None, **inputs: Tensor) -> Any:
        """output, h_n (or output, Carry with return_state=True).

        x: (T, B, input_size), (B, T, input_size) with batch_first, or (T, input_size); the cell's other Inputs by name, in the
        same layout. h_0: the states that are read at a lag, (layers × directions, B, hidden) each, then k when the order is
        above 1, then N for a State(size=N); one tensor or a tuple; or a Carry. reset: bool, x's shape without features: a
        boundary between t-1 and t.
        output: (T, B, hidden × directions); several outputs of the cell come as it returns them, in a tuple or a dict.
        Raises ShapeMismatch, DtypeMismatch, CellError, NotBuilt.
        """
        for name, given in (("cu_seqlens", cu_seqlens), ("cp", cp)):
            if given is not None:
                raise NotBuilt(f"{name}= is part of the language but not built yet", None,
                               "give reset= with the same boundaries" if name == "cu_seqlens" else "run on one device")
        call = read_call(self, x, h_0, reset, inputs)
        outputs, after = self._run(call, return_state)
        result = self.parts[0].pipeline.returned([call.outward(o) for o in outputs])
        if return_state:
            return result, call.carry(after)
        return result, stacked(self, after, call.batched)

    def step(self, x_t: Tensor, carry: States | Carry | None = None, *, reset: Tensor | None = None,
             **inputs: Tensor) -> tuple[Any, Carry]:
        """One step: (y_t, carry). x_t (B, input_size) or (input_size,); reset (B,) or ().

        Raises CellError for a cell that looks ahead.
        """
        pipeline = self.parts[0].pipeline
        if self.bidirectional or pipeline.reverse or pipeline.looks_ahead:
            way = "runs in both directions" if self.bidirectional else "runs from the right" if pipeline.reverse else \
                f"reads {pipeline.looks_ahead[0]} ahead"
            raise CellError(f"{self.cell.name} {way}, so that it cannot go step by step", self.cell.spec.where,
                            "give it the whole sequence")
        time = 1 if self.batch_first and x_t.dim() == 2 else 0
        y, after = self(x_t.unsqueeze(time), carry, reset=None if reset is None else reset.unsqueeze(time),
                        return_state=True, **{n: v.unsqueeze(time) for n, v in inputs.items()})
        if isinstance(y, dict):
            return {name: o.squeeze(time) for name, o in y.items()}, after
        return (tuple(o.squeeze(time) for o in y) if isinstance(y, tuple) else y.squeeze(time)), after

    def _run(self, call: Call, return_state: bool) -> tuple[tuple[Tensor, ...], list[dict[str, Window]]]:
        """All layers: outputs (B, T, …) and, for each layer and direction, what it leaves."""
        x, after = call.inputs[0][1], []
        outputs: tuple[Tensor, ...] = ()
        trees = self.trees()
        for k in range(self.num_layers):
            inputs = {**dict(call.inputs), call.inputs[0][0]: x}
            ways: list[tuple[Tensor, ...]] = []
            for direction in range(self.directions):
                at = k * self.directions + direction
                part, tree, given = self.parts[at], trees[at], call.windows[at]
                windows = part.windows(tree, x.shape[0], given)
                # A reverse run ends on the sample at 0; only a Carry goes on to the boundary before it.
                reset = call.reset if return_state or not part.pipeline.reverse else call.reset_inside
                values = part.pipeline(inputs, part.numbers(tree), part.weights(tree), windows, reset,
                                       self.hidden_size)
                ways.append(part.pipeline.outputs(values))
                edges = {key: (start, given.get(key, NONE)[1]) for key, (start, _) in windows.items()}
                after.append(part.pipeline.carried(values, edges, reset, return_state))
            outputs = ways[0] if len(ways) == 1 else tuple(torch.cat(pair, 2) for pair in zip(*ways, strict=True))
            x = outputs[0]
            if self.dropout and k < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        return outputs, after

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        for part, tree in zip(self.parts, self.trees(), strict=True):
            part.draw(tree)

    def flatten_parameters(self) -> None:
        """Nothing to do; here for code that was written for `torch.nn.LSTM`."""

    def __repr__(self) -> str:
        return f"RNN({self.extra_repr()})"

    def extra_repr(self) -> str:
        said = [self.cell.name, str(self.input_size), str(self.hidden_size)]
        said += [f"num_layers={self.num_layers}"] if self.num_layers != 1 else []
        said += [f"{n}={getattr(self, n)}" for n in ("batch_first", "dropout", "bidirectional") if getattr(self, n)]
        return ", ".join(said)


def _check_arguments(cell: Any, input_size: int, hidden_size: int, num_layers: int, dropout: float,
                     solver: str | None) -> None:
    if isinstance(cell, Sequence):
        raise NotBuilt("a list of cells, one a layer, is part of the language but not built yet", None,
                       "stack modules: x, _ = lr.RNN(first, …)(x)")
    if not isinstance(cell, Cell):
        raise BadDeclaration(f"lr.RNN runs cells, not {cell!r}", None, "declare one with @lr.cell, or take one of lr.cells")
    if solver is not None:
        raise NotBuilt(f"solver={solver!r} is part of the language but not built yet", None,
                       "make the cell linear: lr.surrogate(cell, …)")
    for name, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise BadDeclaration(f"{name} is a positive integer, not {value!r}")
    if not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
        raise BadDeclaration(f"dropout is a probability between 0 and 1, not {dropout!r}")
    if dropout and num_layers == 1:
        warnings.warn(f"dropout={dropout} acts between layers, and there is one: it does nothing", stacklevel=3)
    sizes = [(d, d.option("size", "channel")) for d in cell.spec.of("input")]
    if sizes and sizes[0][1] not in ("channel", input_size):
        raise BadDeclaration(f"{cell.name} says that its input {sizes[0][0].name} has {sizes[0][1]} features, "
                             f"input_size is {input_size}", sizes[0][0].where, f"give input_size={sizes[0][1]}")
