"""The atoms of expressions, and how expressions print."""

from __future__ import annotations

import pickle

import pytest
import sympy as sp

from lrdsl.ir import complex as cx
from lrdsl.ir.complex import is_complex
from lrdsl.ir.functions import equal, greater, greater_equal, where
from lrdsl.ir.symbols import At, Param
from lrdsl.ir.text import exact, show


def test_a_sample_is_its_name_and_its_lag() -> None:
    assert At("h", -1) == At("h", -1) and hash(At("h", -1)) == hash(At("h", -1))
    assert At("h", -1) != At("h", 1) and At("h") != Param("h[t]") and At("h") != sp.Symbol("h[t]", real=True)
    assert [str(At("h", k)) for k in (-2, 0, 3)] == ["h[t-2]", "h[t]", "h[t+3]"]
    shifted = At("h", -1).shift(3)
    assert (shifted.base, shifted.lag) == ("h", 2)


def test_complex_atoms_are_others_and_sympy_does_not_take_them_for_real() -> None:
    z = At("z", -1, complex=True)
    assert z != At("z", -1) and z.shift(1) == At("z", 0, complex=True) and str(z) == "z[t-1]" and z.complex
    assert sp.conjugate(z) != z and sp.conjugate(At("z")) == At("z") and sp.conjugate(Param("v", complex=True)).args
    assert is_complex(z + 1) and is_complex(sp.I * At("x")) and is_complex(cx.conjugate(z)) and not is_complex(cx.modulus(z))
    assert not is_complex(cx.re(z) * At("x")) and cx.exp(z).is_real is None and cx.re(z).is_real


@pytest.mark.parametrize("atom", [At("h", -3), Param("v"), At("x") * Param("v") + At("h", -1), At("h", -3, complex=True),
                                  cx.conjugate(Param("v", complex=True)), cx.modulus(At("z", complex=True))])
def test_atoms_survive_pickling(atom: sp.Expr) -> None:
    copy = pickle.loads(pickle.dumps(atom))
    assert copy == atom and {(s.base, s.lag) for s in copy.atoms(At)} == {(s.base, s.lag) for s in atom.atoms(At)}


def test_people_read_numbers_and_conditions_as_they_were_written() -> None:
    x = At("x")
    assert show(0.3 * x + sp.Float(0.5)) == "0.3*x[t] + 0.5"
    assert show(where(greater(x, 0), x, 2)) == "where(x[t] > 0, x[t], 2)"
    both = greater(x, 0) * greater_equal(2, x)
    assert show(where(both, 1, equal(x, 3))) == "where((x[t] > 0)*(2 >= x[t]), 1, equal(x[t], 3))"
    assert show(greater(x, 0) + 1) == "(x[t] > 0) + 1"


def test_exact_text_tells_every_bit() -> None:
    a, b = sp.Float(0.1), sp.Float(0.1 + 2**-56)
    assert show(a) == show(b) and exact(a) != exact(b) and exact(a) == exact(sp.Float(0.1))
