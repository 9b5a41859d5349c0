"""Spec to Spec: every complex value becomes two real ones, z = z.re + i z.im, before anything is laid out or differentiated.

The adjoint of the pairs has torch's convention by itself: the gradient of z is that of z.re plus i times that of z.im. A state
h[t] = a h[t-1] + b becomes h.re and h.im with the block [[a.re, -a.im], [a.im, a.re]]; where a is real, two recurrences that do
not know of each other. A complex map becomes two real ones, `W.re` and `W.im`, each applied to both parts of an operand; one
with a size of its own two real ones of twice as many operands, with weights [W.re, -W.im] and [W.im, W.re]. A real map of a
complex operand is applied to both, its bias added once.
1/z and |z| are computed with z over its larger part, so that no square overflows; |z| has the gradient 0 at 0, as in torch.
Holds afterwards: no expression is complex; both halves of a sequence are read equally far back, so that a Carry holds both;
`Spec.pairs` says which halves belong together, so that `partition` may leave them in one tensor.
Non-goals: which block a recurrence is (`Scan.structure`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sympy as sp

from ..errors import UnsupportedFunction
from ..ir import complex as cx
from ..ir import functions as f
from ..ir.complex import is_complex
from ..ir.shapes import is_wide
from ..ir.spec import Equation, MapCall, Spec, Statement
from ..ir.symbols import At, Param, samples
from ..ir.text import show
from .extract import extract
from .halves import declared_halves, halves, map_halves
from .simplify import fresh
from .stratify import stratify

Parts = tuple[Any, Any]
ZERO, ONE = sp.S.Zero, sp.S.One


def realify(spec: Spec) -> Spec:
    """The same cell on real values. Raises NotLinear and its kin in the user's names, which its halves have no more."""
    if not spec.complex and not any(e.has(sp.I) for s in spec.statements for e in _exprs(s)):
        return spec
    for group in stratify(spec).groups:
        if group.recurrent:
            extract(group, group.reverse, set() if spec.solver else None)
    work = _Work(spec)
    for statement in spec.statements:
        work.statement(statement)
    outputs: list[tuple[str, At]] = []
    for name, e in spec.outputs:
        outputs += zip((f"{name}.re", f"{name}.im"), map(At, work.values[e.base]), strict=True) if e.complex else [(name, e)]
    return replace(spec, declared=declared_halves(spec), statements=(*work.statements, *work.carried()),
                   outputs=tuple(outputs), pairs=tuple((name, *pair) for name, pair in halves(spec).items())).check()


def _exprs(s: Statement) -> tuple[Any, ...]:
    return (s.expr,) if isinstance(s, Equation) else s.operands


class _Work:
    """The statements written so far, and the parts of the expressions met."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.values, self.maps = spec, halves(spec), map_halves(spec)
        self.statements: list[Statement] = []
        self.taken = {d.name for d in spec.declared} | {s.target for s in spec.statements}
        self.taken |= {half for pair in self.values.values() for half in pair}
        self.known: dict[Any, Parts] = {}
        self.nought: set[At] = set()  # halves of lines that are 0, as the imaginary part of z*conjugate(z)
        self.at: Statement

    def statement(self, s: Statement) -> None:
        """One of the user's statements, and the lines that its parts need before it."""
        self.at, self.known = s, {}
        if isinstance(s, MapCall):
            self._map(s)
        elif s.target in self.values:
            for target, expr in zip(self.values[s.target], self.parts(s.expr), strict=True):
                self.statements.append(replace(s, target=target, expr=expr))
                self.nought |= {At(target)} if expr == 0 and not s.state else set()
        else:
            self.statements.append(replace(s, expr=self.real(s.expr)))

    def carried(self) -> list[Statement]:
        """For a sequence whose halves are read at different lags a line that reads both at the same ones; nothing needs it."""
        deepest: dict[tuple[str, int], At] = {}
        for s in self.statements:
            for r in s.reads():
                if r.lag and abs(r.lag) > abs(deepest.get((r.base, r.lag > 0), At(r.base)).lag):
                    deepest[r.base, r.lag > 0] = r
        found: list[Statement] = []
        for name, pair in self.values.items():
            for way in (False, True):
                both = [deepest[half, way] for half in pair if (half, way) in deepest]
                if both and (len(both) == 1 or both[0].lag != both[1].lag):
                    far = max(both, key=lambda r: abs(r.lag))
                    where = next(s.where for s in self.statements if far in s.reads())
                    found.append(Equation(self.fresh(f"{name}.both"), sp.Add(*(At(half, far.lag) for half in pair)), where))
        return found

    def fresh(self, name: str) -> str:
        return fresh(name, self.taken)

    def line(self, name: str, expr: Any) -> Any:
        """An expression under a name of its own, which sympy cannot see through."""
        if expr.is_Atom:
            return expr
        self.statements.append(Equation(self.fresh(f"{self.at.target}.{name}"), expr, self.at.where))
        return At(self.statements[-1].target)

    def lines(self, name: str, re: Any, im: Any) -> Parts:
        """The same for both parts of a value."""
        return self.line(f"{name}.re", re), self.line(f"{name}.im", im)

    def real(self, expr: Any) -> Any:
        """An expression whose value is real, without complex ones inside."""
        if expr.is_Atom:
            return expr
        if isinstance(expr, cx.re | cx.im):
            return self.parts(expr.args[0])[isinstance(expr, cx.im)]
        if isinstance(expr, cx.modulus):
            return self._modulus(*self.parts(expr.args[0]))
        if isinstance(expr, f.axis_sum):
            return self._total(self.real(expr.args[0]))
        args = [self.real(a) for a in expr.args]
        return expr if all(a is b for a, b in zip(args, expr.args, strict=True)) else expr.func(*args)

    def parts(self, expr: Any) -> Parts:
        """The real and the imaginary part of an expression."""
        if not is_complex(expr):
            return self.real(expr), ZERO
        if expr not in self.known:
            self.known[expr] = self._parts(expr)
        return self.known[expr]

    def _parts(self, expr: Any) -> Parts:
        if isinstance(expr, At):
            re, im = (At(half, expr.lag) for half in self.values[expr.base])
            return ZERO if re in self.nought else re, ZERO if im in self.nought else im
        if isinstance(expr, Param):
            first, second = self.values[str(expr)]
            return Param(first), Param(second)
        if expr is sp.I:
            return ZERO, ONE
        if isinstance(expr, cx.where):
            condition = self.real(expr.args[0])
            pairs = zip(*map(self.parts, expr.args[1:]), strict=True)
            re, im = (f.where(condition, a, b) if (a, b) != (ZERO, ZERO) else ZERO for a, b in pairs)
            return re, im
        if expr.is_Pow:
            n, base = int(expr.exp), self.parts(expr.base)
            power = base if abs(n) == 1 else self._power(self.lines("root", *base), abs(n))
            return power if n > 0 else self._inverse(*power)
        args = [self.parts(a) for a in expr.args]
        if expr.is_Add:
            return sp.Add(*(re for re, _ in args)), sp.Add(*(im for _, im in args))
        if expr.is_Mul:
            return _product(args)
        (a, b), = args
        if isinstance(expr, cx.conjugate):
            return a, -b
        if isinstance(expr, cx.detach):
            return f.detach(a), f.detach(b)
        if isinstance(expr, cx.total):
            return self._total(a), self._total(b)
        if isinstance(expr, cx.exp):
            size = ONE if a == 0 else f.exp(a)
            return size * f.cos(b), size * f.sin(b)
        # expm1 keeps the digits of sinh near 0
        cosh, sinh = (f.exp(b) + f.exp(-b)) / 2, (f.expm1(b) - f.expm1(-b)) / 2
        if isinstance(expr, cx.sin):
            return f.sin(a) * cosh, f.cos(a) * sinh
        return f.cos(a) * cosh, -f.sin(a) * sinh

    def _total(self, part: Any) -> Any:
        """The sum over the axis of a value's part, which may be one number where the value has N."""
        wide = replace(self.spec, declared=declared_halves(self.spec), statements=tuple(self.statements)).wide
        return f.axis_sum(part) if is_wide(part, wide) else self.spec.axis * part

    def _power(self, base: Parts, n: int) -> Parts:
        """A power by squaring; each square is a line, because it is used twice."""
        if n == 1:
            return base
        root = self.lines("root", *self._power(base, n // 2))
        return _product([root, root, *([base] if n % 2 else [])])

    def _inverse(self, a: Any, b: Any) -> Parts:
        """1 / (a + i b), of numbers at once."""
        if b == 0:
            return 1 / a, ZERO
        if a == 0:
            return ZERO, -1 / b
        if a.is_Number and b.is_Number:
            return a / (a * a + b * b), -b / (a * a + b * b)
        a, b = self.lines("below", a, b)
        scale = self.line("scale", f.detach(f.maximum(f.absolute(a), f.absolute(b))))  # 1/z does not depend on it
        p, q = self.lines("scaled", a / scale, b / scale)
        below = self.line("below", (p * p + q * q) * scale)
        return p / below, -q / below

    def _modulus(self, a: Any, b: Any) -> Any:
        """|a + i b|. Where it is 0, a constant stands under the root, so that the gradient is 0 and not nan."""
        if a == 0 or b == 0:
            return f.absolute(a + b)
        a, b = self.lines("of", a, b)
        scale = self.line("scale", f.detach(f.maximum(f.absolute(a), f.absolute(b))))
        some = f.greater(scale, ZERO)
        below = self.line("below", f.where(some, scale, ONE))
        p, q = self.lines("scaled", a / below, b / below)
        return scale * f.sqrt(f.where(some, p * p + q * q, ONE))

    def _map(self, call: MapCall) -> None:
        operands = [self.parts(o) for o in call.operands]
        if call.target in self.values:  # operands that are lines are written once for both maps
            operands = [self.lines(f"in{k}", *pair) for k, pair in enumerate(operands)]
        first, second = zip(*operands, strict=True)
        for operand, pair in zip(call.operands, operands, strict=True):
            if any(part != 0 and not samples(part) for part in pair):
                raise UnsupportedFunction(f"{call.affine} maps {show(operand)}, of which one part does not depend on time",
                                          call.where, "map what does, and add the rest behind the map")
        if call.target not in self.values:
            self.statements.append(replace(call, operands=first))
            return
        re, im = self.values[call.target]
        if call.affine not in self.maps:
            self.statements += [replace(call, target=re, operands=first), replace(call, target=im, operands=second, bias=False)]
            return
        W_re, W_im = self.maps[call.affine]
        if self.spec[call.affine].option("size"):  # no line can subtract its products: its halves have both parts as operands
            self.statements += [replace(call, target=half, affine=W, operands=first + second)
                                for half, W in ((re, W_re), (im, W_im))]
            return
        if all(part == 0 for part in second):
            self.statements += [replace(call, target=re, affine=W_re, operands=first),
                                replace(call, target=im, affine=W_im, operands=first)]
            return
        a, b, c, d = (self.fresh(f"{half}.{part}") for half in (re, im) for part in ("re", "im"))
        self.statements += [replace(call, target=a, affine=W_re, operands=first),
                            replace(call, target=c, affine=W_im, operands=first),
                            replace(call, target=b, affine=W_re, operands=second, bias=False),
                            replace(call, target=d, affine=W_im, operands=second, bias=False),
                            Equation(re, At(a) - At(d), call.where), Equation(im, At(c) + At(b), call.where)]


def _product(factors: list[Parts]) -> Parts:
    """The product of complex numbers; real ones among them multiply both parts."""
    re, im = ONE, ZERO
    for a, b in (p for p in factors if p[1] != 0):
        re, im = re * a - im * b, re * b + im * a
    real = sp.Mul(*(a for a, b in factors if b == 0))
    return real * re, real * im

