"""A Program on tensors: checks, allocation, and the 64-bit slots of `ir.source.fields`.

Every kernel of the Program is called through here, with gradients out of the picture.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import options
from ..errors import BackendUnavailable, DtypeMismatch, ShapeMismatch
from ..ir.program import Program
from ..ir.source import OUTPUTS, Extent, Launch, slots
from ..kernels import backend_for, begin, launch_of, turns
from . import memory, pool
from .dtypes import NAMES, check_dtype, dtype_of, short
from .prepared import LARGE, WASTE, Out, Prepared, Signature, plain, remember, signature
from .threads import share_threads

Tensors = tuple[Tensor, ...]


class Launcher:
    """Runs a Program: tensors in the order of its inputs, then `reset`; gives its outputs in order.

    sequences (B, T, columns * C), or of pairs (B, T, C, 2), vectors (C,) or (), edges (B, depth, C) or None, reset (B, T) bool
    or None. Outputs: keeps, as sequences, in the memory order of the first one, which is (B, T, C), (T, B, C), or on a CPU
    (B, C, T); sums (C,) or (), windows (B, depth, C). What has a state axis is N * C wide, or N where the channels share it.
    dtypes: sequences and learned numbers share one; where it has 16 bits, windows and what is `full` are float32.
    Raises ShapeMismatch and DtypeMismatch in the Program's names.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        every = slots(program)
        self.ins = tuple(s for s in every if s.kind in ("sequence", "vector", "edge", "reset"))
        self.outs = tuple(s for s in every if s.kind in OUTPUTS)
        self.lone = frozenset(v.name for v in program.vectors if v.shape == "one")
        self.summed = frozenset(s.name for s in program.sums if s.over != "time" and not s.shared(program))
        self.largest = frozenset(s.name for s in program.sums if s.largest)
        self.counted = next((k for k, s in enumerate(self.ins) if s.channels and s.kind in ("sequence", "vector")), 0)
        self.columns = 1 if self.ins[self.counted].paired else self.ins[self.counted].columns
        self.alike = tuple(k for k, s in enumerate(self.ins) if s.kind in ("sequence", "vector") and not s.full)
        self._dtypes: dict[torch.dtype, tuple[tuple[torch.dtype, ...], tuple[torch.dtype, ...]]] = {}
        self._launches: dict[tuple[torch.dtype, str], Launch] = {}
        self._calls: dict[tuple[Signature, str | None, bool], Prepared | None] = {}

    def run(self, *args: Tensor | None) -> Tensors:
        """Compute: the op's kernel on every device."""
        prepared = self.prepared(signature(args), args)
        return (prepared and prepared(args)) or self._run(args)

    def prepared(self, found: Signature, args: Sequence[Tensor | None], windows: bool = True) -> Prepared | None:
        """The call on tensors of this signature, all but their addresses; None for what is not plain. Without `windows` it may
        leave out the outputs that are windows, which are the last."""
        key = found, options.backend(), windows
        try:
            return self._calls[key]
        except KeyError:
            return remember(self._calls, key, self._prepare(args, windows) if plain(found) else None)

    def _prepare(self, args: Sequence[Tensor | None], windows: bool) -> Prepared | None:
        B, T, C = self.sizes(args)
        turned = self._turned(args)
        tensors, dtype = self._checked(args, B, T, C, turned), self.dtype(args)
        first = tensors[0]
        if first is None or not (B and T and C):
            return None
        launch = self._compiled(dtype, "cpu")
        extent = launch.extent(B, T, C)
        outs = self._allocate(first, dtype, (B, T, C), extent, turned, memory.unwritten)
        copies = [tensor for tensor, arg in zip(tensors, args, strict=True) if tensor is not None and tensor is not arg]
        if extent.scratch or any(tensor.nbytes > LARGE for tensor in copies):
            return None
        ins, places, slot = [], [], 0
        for k, s in [*enumerate(self.ins[:-1]), *((None, s) for s in self.outs), (len(self.ins) - 1, self.ins[-1])]:
            if k is None:
                places.append(slot)
            elif (tensor := tensors[k]) is not None:
                ins.append((slot, k, None if tensor is args[k] else s))
            slot += len(s.fields)
        parts = any(s.kind in ("sum", "shared") or (s.kind == "crossing" and o.shape[0] != B)
                    for s, o in zip(self.outs, outs, strict=True))
        values, given = memory.fields(self.ins, tensors, self.outs, outs, (B, T, C), turned), list[Out]()
        edges = [o for s, o in zip(self.outs, outs, strict=True) if s.kind in ("final", "crossing")]
        read = windows or parts or backend_for("cpu") != "native" or any(o.nbytes > LARGE for o in edges)
        for s, at, o in zip(self.outs, places, outs, strict=True):
            if read or s.kind not in ("final", "crossing"):
                given.append((at, tuple(o.shape), o.stride(), o.dtype))
            else:
                values[at] = WASTE
        return Prepared(launch, values, ins, given, turned, (lambda outs: self._finish(outs, dtype, B)) if parts else None,
                        (B, T, C), self.gives(dtype))

    def _run(self, args: Sequence[Tensor | None]) -> Tensors:
        """As `run`, for a signature that is not prepared."""
        B, T, C = self.sizes(args)
        turned = self._turned(args)
        tensors, dtype = self._checked(args, B, T, C, turned), self.dtype(args)
        first = tensors[0]
        assert first is not None
        if not (B and T and C):
            outs = self._allocate(first, dtype, (B, T, C), Extent(0), turned)
            self._fill(tensors, outs)
            return self._finish(outs, dtype, B)
        launch = self._compiled(dtype, first.device.type)
        extent = launch.extent(B, T, C)
        outs = self._allocate(first, dtype, (B, T, C), extent, turned)
        values = memory.fields(self.ins, tensors, self.outs, outs, (B, T, C), turned)
        if first.is_cuda:
            self._on_device(launch, values, first, extent.scratch)
        else:
            scratch = first.new_zeros((extent.scratch // 8,), dtype=torch.int64) if extent.scratch else None
            launch(values, torch.get_num_threads(), scratch=0 if scratch is None else scratch.data_ptr(), turned=turned)
        return self._finish(outs, dtype, B)

    def fake(self, *args: Tensor | None) -> Tensors:
        """Allocate only: what a compiler needs to know of `run`."""
        B, T, C = self.sizes(args)
        turned = self._turned(args)
        first, dtype = self._checked(args, B, T, C, turned)[0], self.dtype(args)
        assert first is not None
        return self._finish(self._allocate(first, dtype, (B, T, C), Extent(0), turned, memory.unwritten), dtype, B)

    def sizes(self, args: Sequence[Tensor | None]) -> tuple[int, int, int]:
        """B, T, C of a call."""
        first, counted = args[0], args[self.counted]
        assert first is not None and counted is not None
        channels = counted.shape[2 if self.ins[self.counted].paired else -1] if counted.dim() else 0
        if first.dim() != 3 + self.ins[0].paired or not counted.dim() or channels % self.columns:
            raise ShapeMismatch(f"{self.ins[0].name} has shape {tuple(first.shape)}, not (batch, time, "
                                f"{f'{self.columns} * ' if self.columns > 1 else ''}channels)")
        B, T = first.shape[:2]
        return B, T, channels // self.columns

    def dtype(self, args: Sequence[Tensor | None]) -> torch.dtype:
        """The dtype of a call: what its sequences and learned numbers share."""
        return args[self.alike[0] if self.alike else 0].dtype  # type: ignore[union-attr]

    def gives(self, dtype: torch.dtype) -> tuple[torch.dtype, ...]:
        """The dtypes of the outputs of a call."""
        return self._both(dtype)[1]

    def _both(self, dtype: torch.dtype) -> tuple[tuple[torch.dtype, ...], tuple[torch.dtype, ...]]:
        """Those of its inputs and of its outputs."""
        if dtype not in self._dtypes:
            ins, outs = (tuple(dtype_of(s, dtype) for s in side) for side in (self.ins, self.outs))
            self._dtypes[dtype] = ins, outs
        return self._dtypes[dtype]

    def _turned(self, args: Sequence[Tensor | None]) -> bool:
        """Whether the sequences lie in memory as (B, C, T), and a kernel takes them so."""
        return memory.steps_adjacent(self.ins, args) and args[0].device.type == "cpu" and (  # type: ignore[union-attr]
            backend_for("cpu") == "native" and self._turns)

    @functools.cached_property
    def _turns(self) -> bool:
        return turns(self.program)

    def _checked(self, args: Sequence[Tensor | None], B: int, T: int, C: int, turned: bool) -> tuple[Tensor | None, ...]:
        """The inputs, channels contiguous, or where they are turned the steps of each; the kernel trusts what passes here."""
        first, device = self.alike[0] if self.alike else 0, args[0].device  # type: ignore[union-attr]
        check_dtype(self.ins[first].name, args[first])  # type: ignore[arg-type]
        dtype, tensors = self.dtype(args), list(args)
        for k, (slot, tensor, wanted) in enumerate(zip(self.ins, args, self._both(dtype)[0], strict=True)):
            if tensor is None:
                if slot.kind in ("sequence", "vector"):
                    raise ShapeMismatch(f"{slot.name} is missing")
                continue
            shape = () if slot.name in self.lone else slot.shape(B, T, C)
            if tensor.shape != shape:
                raise ShapeMismatch(f"{slot.name} has shape {tuple(tensor.shape)}, not {shape}")
            if tensor.dtype is not wanted:
                raise DtypeMismatch(f"{slot.name} is {short(tensor.dtype)}, not {short(wanted)}")
            if tensor.device != device:
                raise DtypeMismatch(f"{slot.name} is on {tensor.device}, {self.ins[0].name} on {device}")
            tensors[k] = memory.dense(slot, tensor, turned)
        return tuple(tensors)

    def _allocate(self, first: Tensor, dtype: torch.dtype, sizes: tuple[int, int, int], extent: Extent, turned: bool,
                  new: memory.New = pool.empty) -> list[Tensor]:
        return memory.allocate(self.outs, self.gives(dtype), first, dtype, sizes, extent, turned, new)

    @staticmethod
    def _on_device(launch: Launch, values: Sequence[int], first: Tensor, scratch: int) -> None:
        """Launch on the tensors' device, on torch's current stream there. An op gets no device guard from torch."""
        with torch.cuda.device(first.device):
            # Zeroed on the same stream; when it is freed, torch gives it to nobody whom this stream does not precede.
            memory = first.new_zeros((scratch // 8,), dtype=torch.int64) if scratch else None
            launch(values, device=first.get_device(), stream=torch.cuda.current_stream().cuda_stream,
                   scratch=0 if memory is None else memory.data_ptr())

    def _fill(self, tensors: Sequence[Tensor | None], outs: Sequence[Tensor]) -> None:
        """What no step leaves: final windows are the start, all sums zero."""
        given = {slot.name: tensor for slot, tensor in zip(self.ins, tensors, strict=True)}
        final = {e.final: e for e in self.program.edges}
        for slot, out in zip(self.outs, outs, strict=True):
            edge = final.get(slot.name)
            start = given.get(edge.start) if edge and edge.start else None
            out.fill_(edge.init if edge else 0.0) if start is None else out.copy_(start)

    def begin(self, dtype: torch.dtype, device: str, sizes: tuple[int, int, int]) -> None:
        """Start to compile for these, if that can be beside other work."""
        if (dtype, backend := backend_for(device)) not in self._launches and device == "cpu":
            begin(self.program, NAMES[dtype], backend, *sizes)

    def _compiled(self, dtype: torch.dtype, device: str) -> Launch:
        key = dtype, backend_for(device)
        launch = self._launches.get(key)
        if launch is None:
            if (device == "cpu") == (key[1] == "cuda"):
                place, move = ("a GPU", ".cuda()") if device == "cpu" else ("the CPU", ".cpu()")
                raise BackendUnavailable(f"the backend {key[1]!r} runs on {place}, the tensors are on {device!r}\n"
                                         f"  way out: move them there with {move}, or unset LRDSL_BACKEND")
            share_threads()
            launch = self._launches[key] = launch_of(self.program, NAMES[dtype], key[1])
        return launch

    def _finish(self, outs: list[Tensor], dtype: torch.dtype, B: int) -> Tensors:
        """Partial sums, (parts * B, C) and (parts * B, depth, C), added up in a fixed order."""
        found = []
        for slot, o, kind in zip(self.outs, outs, self.gives(dtype), strict=True):
            if slot.kind == "sum":
                join = torch.amax if slot.name in self.largest else torch.sum
                o = join(o, dim=(0, 1) if slot.name in self.summed else 0).to(kind)
            elif slot.kind in ("crossing", "shared") and o.shape[0] != B:
                o = o.unflatten(0, (o.shape[0] // B, B)).sum(0).to(kind)
            elif slot.kind == "shared":
                o = o.to(kind)
            found.append(o)
        return tuple(found)
