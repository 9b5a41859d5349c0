"""Write a linear recurrent cell as equations; get its fused parallel-scan kernels, forward and backward, as a torch module.

`import lrdsl` imports no torch and needs no compiler, driver or GPU: what needs them is found when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import cells, options
from .compiler import compile  # which also gives a Cell its explain() and source()
from .errors import (
    BackendUnavailable,
    BadDeclaration,
    BadLag,
    BothDirections,
    BranchOnSymbol,
    CellError,
    CellErrors,
    CyclicStates,
    DtypeMismatch,
    DuplicateUpdate,
    InternalError,
    LrdslError,
    NotBuilt,
    NotLinear,
    NoUpdate,
    ShapeMismatch,
    ToolchainError,
    UnknownName,
    UnsupportedFunction,
    UnusedName,
)
from .frontend.cell import Cell, cell
from .frontend.functions import (
    abs,
    conjugate,
    cos,
    detach,
    equal,
    exp,
    expm1,
    gelu,
    im,
    log,
    log1p,
    logaddexp,
    maximum,
    minimum,
    re,
    relu,
    sigmoid,
    silu,
    sin,
    softplus,
    sqrt,
    sum,
    tanh,
    where,
)
from .frontend.kinds import Affine, Input, Mask, Scalar, State, Vector, first, t
from .frontend.surrogate import surrogate
from .ir.solver import Newton

if TYPE_CHECKING:
    from .nn.carry import Carry
    from .nn.function import function, linear_scan
    from .nn.module import RNN
    from .nn.pool import empty_pool, pool_usage

__version__ = "0.1.0"

_LATER = {"RNN": ".nn.module", "function": ".nn.function", "linear_scan": ".nn.function", "Carry": ".nn.carry",
          "pool_usage": ".nn.pool", "empty_pool": ".nn.pool"}
_RESERVED = ("tune", "precompile", "convert", "load_exported", "ContextParallel")

__all__ = [
    "cell", "Cell", "Input", "State", "Affine", "Vector", "Scalar", "Mask", "t", "first", "surrogate", "cells",
    "RNN", "Carry", "Newton", "function", "linear_scan", "compile", "pool_usage", "empty_pool",
    "sigmoid", "tanh", "relu", "silu", "gelu", "softplus", "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "abs",
    "maximum", "minimum", "logaddexp", "where", "equal", "sum", "conjugate", "re", "im", "detach",
    "LrdslError", "CellError", "CellErrors", "NotLinear", "CyclicStates", "BothDirections", "UnknownName", "UnusedName",
    "NoUpdate", "DuplicateUpdate", "UnsupportedFunction", "BranchOnSymbol", "BadLag", "BadDeclaration", "NotBuilt",
    "ShapeMismatch", "DtypeMismatch", "BackendUnavailable", "ToolchainError", "InternalError",
    "tune", "precompile", "convert", "load_exported", "ContextParallel",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        value = getattr(importlib.import_module(_LATER[name], __name__), name)
    elif name in _RESERVED:
        value = _reserved(name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _reserved(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotBuilt(f"lrdsl.{name} is a reserved name, not built yet", None, "tell us that you need it")
    refuse.__name__, refuse.__doc__ = name, f"`{name}`: reserved; a call raises NotBuilt."
    return refuse


options.configure_logs()
