"""From what Python says of a line to what the user should know: exceptions of a body as CellErrors.

Values of a body are symbols; Python, math, numpy and torch complain about them in words of their own.
"""

from __future__ import annotations

import ast
import re
from difflib import get_close_matches
from typing import Any

import sympy as sp

from ..errors import BranchOnSymbol, CellError, UnknownName, UnsupportedFunction
from ..ir.functions import TABLE
from ..location import Location
from .recording import ALIKE, FUNCTIONS, similar

KNOWN = CellError("follows from an earlier mistake")

_JOIN = {"and": "write (a) & (b) inside lr.where", "or": "write (a) | (b) inside lr.where",
         "not": "write ~(condition) inside lr.where", "==": "write lr.equal(a, b) inside lr.where",
         "!=": "write 1 - lr.equal(a, b)", "assert": "leave it out, or check the tensors before the call"}


def branch(asked_by: str) -> BranchOnSymbol:
    """Python asked a symbol for its truth, through `if`, `and`, `==` …"""
    if asked_by in ("==", "!="):
        what = f"{asked_by} compares the symbols, not their values, which are known only when the cell runs"
    else:
        what = f"Python cannot decide `{asked_by}` on a sample: its value is known only when the cell runs"
    return BranchOnSymbol(what, None, _JOIN.get(asked_by, "write lr.where(condition, a, b)"))


def mistake(error: Exception, where: Location, text: str, body: Any) -> CellError | None:
    """The CellError that an exception amounts to; None for one that is not about the language.

    text: the expression at work; body: knows the names of the cell and those that have no value after a mistake.
    """
    found: CellError | None
    if isinstance(error, CellError):
        found = error
    elif isinstance(error, NameError):
        found = _unknown(error, body)
    elif isinstance(error, TypeError | AttributeError):
        found = _refused(str(error), text)
    else:
        return None
    if found is KNOWN or found.where:
        return found
    placed = type(found)(found.what, where, found.hint)
    placed.__cause__ = None if isinstance(error, CellError) else error
    return placed


def _unknown(error: NameError, body: Any) -> CellError:
    quoted = re.search(r"'([^']+)'", str(error))
    name = error.name or (quoted.group(1) if quoted else "?")
    if name in body.failed:
        return KNOWN
    return UnknownName(f"{name} is not defined", None, _did_you_mean(name, body.function.__code__.co_varnames))


def _did_you_mean(name: str, local: tuple[str, ...]) -> str:
    if name in local:
        return "the body gives it a value on a later line, or on none that runs: set it before, or rename it"
    if name in FUNCTIONS or name == "t":
        return f"import it: from lrdsl import {name}"
    near = get_close_matches(name, [*local, *FUNCTIONS], 1)
    return f"did you mean {near[0]}?" if near else f"declare {name} in the signature, or import it"


def _refused(said: str, text: str) -> CellError:
    """A TypeError or an AttributeError, from its words and the text of the expression."""
    tree = _parsed(text)
    call = ast.unparse(tree.func) if isinstance(tree, ast.Call) else ""
    last = call.rpartition(".")[2]
    if "truth value" in said:
        return _undecided(text, tree, call)
    if found := re.search(r"module 'lrdsl.*' has no attribute '(\w+)'", said):
        near = get_close_matches(found.group(1), FUNCTIONS, 1)
        return UnknownName(f"lrdsl has no {found.group(1)}", None, f"did you mean lr.{near[0]}?" if near else similar(""))
    if found := re.search(r"no attribute '(real|imag|conj)'", said):
        value = ast.unparse(tree.value) if isinstance(tree, ast.Attribute) else "z[t]"
        return UnsupportedFunction(f"{text or said} has no meaning in a cell", None,
                                   f"write lr.{_PARTS[found.group(1)]}({value})")
    if call and re.search("to float|to int|ufunc|must be Tensor|round symbolic", said):
        return UnsupportedFunction(f"{call} wants numbers, and samples have values only when the cell runs", None,
                                   similar(last))
    if found := re.search(r"'(\w+)' object (?:is )?(.*)", said):
        kind, use = found.groups()
        learned = kind == "Param"
        way = (_LEARNED if learned else _VALUE).get(use)
        if way and (learned or kind == "At" or kind in TABLE or hasattr(sp, kind)):
            part = tree.value if isinstance(tree, ast.Subscript) and "iterable" not in use else getattr(tree, "func", tree)
            name = ast.unparse(part) if part else text
            what = "a learned number, the same at every step" if learned else "a value of this step"
            return UnsupportedFunction(f"{name} is {what}", None, way.format(name=name if name.isidentifier() else "y"))
    if "comparison of non-real" in said:
        return UnsupportedFunction(f"{text} compares a complex value", None, "compare real numbers: lr.abs(…), lr.re(…)")
    if re.search(r"GreaterThan|LessThan|'(And|Or|Not|bool)'", said):
        return UnsupportedFunction("a condition is not a number", None, "write lr.where(condition, 1, 0)")
    if "unsupported operand" in said or "bad operand" in said:
        return UnsupportedFunction(f"{text or said} has no meaning in a cell", None,
                                   "samples know + - * / ** and the functions of lrdsl; write sequences as x[t], maps as "
                                   "gate(x[t])")
    way = f"help({call}) says what it takes" if call and "argument" in said else "write sequences as x[t], maps as gate(x[t])"
    return UnsupportedFunction(f"{text}: {said}" if text else said, None, way)


def _undecided(text: str, tree: ast.expr | None, call: str) -> BranchOnSymbol:
    """A relation of samples was asked for its truth where no rewritten text asks."""
    last = call.rpartition(".")[2]
    if isinstance(tree, ast.Compare) and len(tree.ops) > 1:
        return BranchOnSymbol(f"Python takes {text} apart with `and`, which it cannot decide on a sample", None,
                              "write (a < b) & (b < c) inside lr.where")
    if last in ALIKE:
        return BranchOnSymbol(f"{call} compares its arguments, but samples have values only when the cell runs", None,
                              similar(last))
    return branch(last or "if")


_PARTS = {"real": "re", "imag": "im", "conj": "conjugate"}  # torch's names of what is a function here

# What a learned number and a value cannot do, in Python's words; and the way out.
_LEARNED = {"not subscriptable": "write {name}", "not callable": "declare it as a map: {name}: lr.Affine",
            "does not support item assignment": "declare it as a state: {name}: lr.State"}
_VALUE = {"not subscriptable": "declare it as a state: {name}[t] = …, then {name}[t-1] is its value a step ago",
          "not callable": "write a product with *", "not iterable": "give it one name",
          "does not support item assignment": "declare it as a state: {name}: lr.State"}


def _parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(f"({text})", mode="eval").body if text else None
    except SyntaxError:
        return None
