"""A cell's source, rewritten once so that every line keeps its name and answers for its mistakes.

    g = sigmoid(gate(x[t]))     ->  with __guard__(9, ("g",)): g = __let__("g", sigmoid(gate(x[t])), 9)
    if deep and n == 2: …       ->  with __guard__(10, …): if __truth__("and", deep) and __same__("==", n, 2): …
    return h[t]                 ->  with __guard__(12, ()): return __result__(h[t], 12)

Places stay where they are in the user's file, to the column. Functions inside the body get names but no guards: what goes
wrong there belongs to the line that calls them. So do loops, in which a guard could go on for ever.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol


class Hooks(Protocol):
    """What the rewritten text calls."""

    def guard(self, line: int, names: tuple[str, ...]) -> Any:
        """A context manager for a statement, which gives values to `names`."""

    def let(self, names: Any, value: Any, line: int) -> Any:
        """The value that the name, or the tuple of names, is to have."""

    def truth(self, asked_by: str, value: Any) -> Any:
        """The value whose truth an `if`, `and`, `not` … is about to ask for."""

    def same(self, sign: str, a: Any, b: Any) -> Any:
        """The value of a == b or a != b."""

    def result(self, value: Any, line: int) -> Any:
        """The value that the body returns."""


@dataclass(frozen=True)
class Definition:
    """A function's own text: its tree, its source, and the line of each name of its signature."""

    tree: ast.FunctionDef
    source: str
    lines: dict[str, int]


def definition(function: types.FunctionType) -> Definition | None:
    """The function's definition in its file; None where there is none to read, or another one by now."""
    try:
        source = inspect.getsource(function)
        block = ast.parse("if 1:\n" + source if source[:1].isspace() else source)
    except (OSError, TypeError, SyntaxError):
        return None
    tree = block.body[0].body[0] if isinstance(block.body[0], ast.If) else block.body[0]
    code = function.__code__
    if not isinstance(tree, ast.FunctionDef) or tree.name != code.co_name:
        return None
    ast.increment_lineno(block, code.co_firstlineno - (2 if source[:1].isspace() else 1))
    lines = {a.arg: a.lineno for a in ast.walk(tree.args) if isinstance(a, ast.arg)}
    if lines.keys() != inspect.signature(function).parameters.keys():
        return None
    return Definition(tree, textwrap.dedent(source), lines)


def rewrite(function: types.FunctionType, tree: ast.FunctionDef, hooks: Hooks) -> Callable[..., Any]:
    """The function with every line named and guarded, in the scope of the original. `tree` is used up."""
    closure = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    free = {name: cell.cell_contents for name, cell in closure if _filled(cell)}
    helpers = {f"__{name}__": getattr(hooks, name) for name in ("guard", "let", "truth", "same", "result")}
    tree.decorator_list, tree.returns, tree.args = [], None, _plain(inspect.signature(function).parameters)
    tree.body = [_guarded(_Rewrite().visit(s)) for s in tree.body]
    module = ast.parse("def __make__(): return None")
    make: Any = module.body[0]
    make.args, make.body = _plain([*helpers, *free]), [tree, ast.Return(ast.Name(tree.name, ast.Load()))]
    scope: dict[str, Any] = {}
    exec(compile(ast.fix_missing_locations(module), function.__code__.co_filename, "exec"), function.__globals__, scope)
    made: Callable[..., Any] = scope["__make__"](**helpers, **free)
    return made


class _Rewrite(ast.NodeTransformer):
    """Values of names become lets, questions of truth and equality become calls."""

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        names = next((n for n in map(_names, node.targets) if n is not None), None)
        return self._named(node, names)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        return self._named(node, _names(node.target)) if node.value else node

    def visit_NamedExpr(self, node: ast.NamedExpr) -> ast.AST:
        self.generic_visit(node)
        return self._named(node, _names(node.target))

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.target, ast.Name):
            return node
        value = ast.BinOp(ast.Name(node.target.id, ast.Load()), node.op, node.value)
        plain = ast.Assign([node.target], ast.copy_location(value, node))
        return self._named(ast.copy_location(plain, node), node.target.id)

    @staticmethod
    def _named(node: Any, names: Any) -> ast.AST:
        if names is not None:
            node.value = _call("let", node.value, _constant(names), node.value, ast.Constant(node.lineno))
        return node

    def visit_If(self, node: Any) -> ast.AST:
        self.generic_visit(node)
        node.test = _call("truth", node.test, ast.Constant(_ASKS[type(node)]), node.test)
        return node

    visit_IfExp = visit_While = visit_Assert = visit_If  # noqa: N815

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        node.ifs = [_call("truth", test, ast.Constant("if"), test) for test in node.ifs]
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        asks = ast.Constant("and" if isinstance(node.op, ast.And) else "or")
        node.values = [*(_call("truth", v, asks, v) for v in node.values[:-1]), node.values[-1]]
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not):
            node.operand = _call("truth", node.operand, ast.Constant("not"), node.operand)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        sign = {ast.Eq: "==", ast.NotEq: "!="}.get(type(node.ops[0]))
        if len(node.ops) > 1 or sign is None:
            return node
        return _call("same", node, ast.Constant(sign), node.left, node.comparators[0])

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.generic_visit(node)
        if node.value:
            node.value = _call("result", node.value, node.value, ast.Constant(node.lineno))
        return node


_ASKS: dict[type, str] = {ast.If: "if", ast.IfExp: "if", ast.While: "while", ast.Assert: "assert"}


def _guarded(node: Any) -> Any:
    """The statement under a guard; those of an `if` or a `with` under guards of their own as well."""
    if isinstance(node, ast.Global | ast.Nonlocal):
        return node
    if isinstance(node, ast.If | ast.With):
        node.body = [_guarded(s) for s in node.body]
    if isinstance(node, ast.If):
        node.orelse = [_guarded(s) for s in node.orelse]
    names = sorted({n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)})
    item = ast.withitem(_call("guard", node, ast.Constant(node.lineno), _constant(tuple(names))), None)
    return ast.fix_missing_locations(ast.copy_location(ast.With([item], [node]), node))


def _names(target: ast.expr) -> Any:
    """"g", or ("f", "i"), or None for what gives no names: h[t], and a tuple with a star."""
    if isinstance(target, ast.Name):
        return target.id
    if isinstance(target, ast.Tuple | ast.List) and not any(isinstance(e, ast.Starred) for e in target.elts):
        return tuple(_names(e) for e in target.elts)
    return None


def _constant(value: Any) -> ast.Constant:
    return ast.Constant(value)


def _call(hook: str, place: Any, *args: ast.expr) -> Any:
    return ast.fix_missing_locations(ast.copy_location(ast.Call(ast.Name(f"__{hook}__", ast.Load()), list(args), []), place))


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty cell raises
    except ValueError:
        return False
    return True


def _plain(names: Iterable[str]) -> ast.arguments:
    return ast.arguments([], [ast.arg(n) for n in names], None, [], [], None, [])
