"""The structure of a linear recurrence: the few numbers that say what one step, or any number of steps, does to its state.

The state is what the next step reads of the past, for order k the last k values. One step multiplies it by a matrix, many
steps by the product of theirs, and a structure is a form that such products keep: multiples of one number (a shared decay),
a + ib (a rotation, scaled or not; k x k blocks of them where complex states are coupled), triangles, and dense matrices. A step
of a companion matrix moves all values but one and costs k products, though many steps fill the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sympy as sp

from . import functions as f
from .algebras import Algebra
from .symbols import At, samples

Place = tuple[int, int]
LARGEST = 1000  # operations of an expression that is still written out, to see whether two are the same


class Term(NamedTuple):
    """An entry of a matrix that is not 0, in `column`: `sign` times the number `number`; `sign` itself where that is None."""

    column: int
    sign: int
    number: int | None


Rows = tuple[tuple[Term, ...], ...]


@dataclass(frozen=True)
class Structure:
    """name: for people. state: (which state, how many steps back) of each number that the matrices multiply. step: the matrix
    of one step, whose numbers are the `coefficients`; these are written out where they are `constant`, the same at all times.
    many: the matrix of any number of steps, of `count` numbers. modulus: of a rotation, what it scales the length of the state
    by, where that can be seen. algebra: another than (+, *), whose sum and + take the places of + and *."""

    name: str
    state: tuple[Place, ...]
    step: Rows
    coefficients: tuple[Any, ...]
    many: Rows
    count: int
    constant: bool
    modulus: Any = None
    algebra: Algebra | None = None

    @property
    def size(self) -> int:
        """Numbers of the state."""
        return len(self.state)

    @property
    def powers(self) -> bool:
        """Whether the matrix of many steps is best known as a power of one; a number alone is as quickly carried along."""
        return self.constant and self.count > 1

    @property
    def held(self) -> int:
        """Numbers of the matrix of many steps within a block. A single one has its rounding error beside it: where coefficients
        are just below 1, their products are all rounded the same way, and over many chunks that adds up, as in no loop."""
        return 2 if self.count == 1 and not self.algebra else self.count

    @property
    def identity(self) -> tuple[int, ...]:
        """The numbers of the matrix of no step at all."""
        return tuple(int(self.place(n)[0] == self.place(n)[1]) for n in range(self.count))

    def place(self, number: int) -> Place:
        """(row, column) where a number of `many` stands first, with the sign +."""
        return next((i, t.column) for i, row in enumerate(self.many) for t in row if (t.sign, t.number) == (1, number))


def structure(orders: Sequence[int], A: Sequence[Any], lines: Mapping[At, Any] | None = None,
              algebra: Algebra | None = None) -> Structure:
    """The structure of h[t] = A[0] h[t-1] + A[1] h[t-2] + …, of which state j is read `orders[j]` steps back.

    lines: what samples stand for, so that equal coefficients with other names are seen to be equal. algebra: another than
    (+, *), of one state.
    """
    if algebra:
        one = _diagonal([0])
        return Structure(str(algebra), ((0, 1),), one, (A[0][0, 0],), one, 1, False, algebra=algebra)
    places = [(j, k) for j, order in enumerate(orders) for k in range(1, order + 1)]
    M = [[A[k - 1][j, i] if back == 1 else sp.Integer((j, back - 1) == (i, k)) for i, k in places] for j, back in places]
    known = [[_written_out(e, lines or {}) for e in row] for row in M]
    step, coefficients = _terms(M, known)
    constant = not any(samples(e) for row in known for e in row)
    if constant:
        step, coefficients = _terms(known, known)
    said = ", constant" if constant else ""
    n = len(places)
    if n <= 1:
        name = "diagonal" if n and places[0] == (0, 1) else "no recurrence"
        return Structure(name + said * n, tuple(places), step, coefficients, _diagonal(range(n)), n, constant)
    if all(known[i][j] == 0 for i in range(n) for j in range(n) if i != j):
        shared = len({known[i][i] for i in range(n)}) == 1
        many, name = (_diagonal([0] * n), "shared decay") if shared else (_diagonal(range(n)), "diagonal")
        return Structure(f"{name}, {n} states{said}", tuple(places), step, coefficients, many, 1 if shared else n, constant)
    if pairs := _complex(known):
        reach = _reach([[any(known[i][j] != 0 for i in p for j in q) for q in pairs] for p in pairs])
        numbers = {pq: 2 * k for k, pq in enumerate((p, q) for p in range(n // 2) for q in range(n // 2) if reach[p][q])}
        many = _pairwise(pairs, numbers)
        modulus = _modulus(known[0][0], known[1][0]) if n == 2 else None
        name = f"complex {n // 2}x{n // 2}" if n > 2 else "rotation" if modulus == 1 else "scaled rotation"
        return Structure(name + said, tuple(places), step, coefficients, many, 2 * len(numbers), constant, modulus)
    reach = _reach([[e != 0 for e in row] for row in known])
    count = iter(range(n * n))
    many = tuple(tuple(Term(j, 1, next(count)) for j in range(n) if reach[i][j]) for i in range(n))
    return Structure(_name(known, reach, orders) + said, tuple(places), step, coefficients, many, sum(map(len, many)), constant)


def _written_out(expr: Any, lines: Mapping[At, Any]) -> Any:
    """The expression with every line that it reads in its place, unless that is long."""
    for _ in range(len(lines)):
        wider = expr.xreplace({s: lines[s] for s in samples(expr) if s in lines})
        if wider == expr or wider.count_ops() > LARGEST:
            break
        expr = wider
    return expr


def _terms(M: Any, known: Any) -> tuple[Rows, tuple[Any, ...]]:
    """The entries, equal ones and those that differ in their signs by one number."""
    seen: dict[Any, int] = {}
    coefficients: list[Any] = []
    rows = []
    for row, same in zip(M, known, strict=True):
        terms = []
        for j, (expr, value) in enumerate(zip(row, same, strict=True)):
            if value in (1, -1):
                terms.append(Term(j, int(value), None))
            elif value != 0:
                sign = -1 if -value in seen else 1
                if sign * value not in seen:
                    sign = -1 if expr.could_extract_minus_sign() else 1
                    seen[sign * value] = len(coefficients)
                    coefficients.append(sign * expr)
                terms.append(Term(j, sign, seen[sign * value]))
        rows.append(tuple(terms))
    return tuple(rows), tuple(coefficients)


def _diagonal(numbers: Iterable[int]) -> Rows:
    return tuple((Term(i, 1, number),) for i, number in enumerate(numbers))


def _reach(pattern: Sequence[Sequence[bool]]) -> list[list[bool]]:
    """Which entries a product of any number of such matrices may have; the identity is one of them."""
    n = len(pattern)
    found = [[bool(pattern[i][j]) or i == j for j in range(n)] for i in range(n)]
    for k in range(n):
        found = [[found[i][j] or (found[i][k] and found[k][j]) for j in range(n)] for i in range(n)]
    return found


def _complex(M: Any) -> list[Place]:
    """The pairs of numbers that are real and imaginary parts: all of M acts on them as complex numbers do; or none."""
    n = len(M)
    ways: tuple[Callable[[int], Place], ...] = (lambda k: (2 * k, 2 * k + 1), lambda k: (k, n // 2 + k))
    for way in ways if n % 2 == 0 else ():
        pairs = [way(k) for k in range(n // 2)]
        if all(M[p][q] == M[r][s] and M[p][s] == -M[r][q] for p, r in pairs for q, s in pairs):
            return pairs
    return []


def _pairwise(pairs: Sequence[Place], numbers: Mapping[Place, int]) -> Rows:
    """[[a, -b], [b, a]] for each pair of pairs that has numbers."""
    rows: dict[int, list[Term]] = {i: [] for pair in pairs for i in pair}
    for (p, q), a in numbers.items():
        (re, im), (x, y) = pairs[p], pairs[q]
        rows[re] += [Term(x, 1, a), Term(y, -1, a + 1)]
        rows[im] += [Term(x, 1, a + 1), Term(y, 1, a)]
    return tuple(tuple(sorted(rows[i])) for i in range(len(rows)))


def _modulus(a: Any, b: Any) -> Any:
    """The r of a = r cos(e) and b = r sin(e) or -r sin(e)."""
    for call in sp.Mul.make_args(a):
        if isinstance(call, f.cos):
            r = sp.Mul(*(x for x in sp.Mul.make_args(a) if x is not call))
            if b in (r * f.sin(*call.args), -r * f.sin(*call.args)):
                return r
    return None


def _name(M: Any, reach: Any, orders: Sequence[int]) -> str:
    n = len(M)
    if len(orders) == 1:
        return f"companion, order {n}"
    moves = [sum(e != 0 for e in line) == 1 and 1 in line for line in (*M, *map(list, zip(*M, strict=True)))]
    if n - 1 in (sum(moves[:n]), sum(moves[n:])):
        return f"companion, order {n}"
    if not any(reach[i][j] and reach[j][i] for i in range(n) for j in range(i)):
        return f"triangular {n}x{n}"
    return f"dense {n}x{n}"
