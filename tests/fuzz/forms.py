"""The table of forms: sort of expression -> how it may be written, the simplest first; {holes} are sorts again, or what
`grammar.Grower` knows of the cell.

    {input} {sample} {learned} {map}         real: an Input, what is known at this step, a learned number, a dense map
    {zinput} {zsample} {zlearned} {zmap}     the same, complex
    {past}                                   what a recurrence may read of itself
    {fold}                                   the function that stands in the place of its sum
    {wide} {zwide}                           what has N numbers along the state axis, as all that stands in a `sum(…)` may
    {mask}                                   a Mask

To add a production, add a form. To add a sort, add a line, and a hole that reads it. A sort's promise must hold for every form:
`bounded` lies in [-1, 1], `gate` in [-0.9, 0.9], `linear` is at most as large as the largest {past} and linear in it, `value`
grows by no more than a few times what it reads; those with a z are complex, and promise it of their modulus; `folded` is linear
over the algebra of {fold}. A new function needs its meaning in `meaning.FUNCTIONS`.
"""

from __future__ import annotations

FORMS: dict[str, tuple[str, ...]] = {
    "number": ("0.5", "2", "0.25", "-1.5", "3", "0.7"),
    "condition": ("{sample} > {number}", "{input} <= 0.25", "{input} >= {input}", "equal({input}, 0.5)", "{input} < {input}",
                  "{input} >= {learned}", "{sample} < {bounded}", "({condition}) & ({condition})",
                  "({condition}) | ({condition})", "~({condition})"),
    "bounded": ("tanh({value})", "sin({value})", "{input}", "cos({value})", "sigmoid({value})", "{bounded} * {bounded}",
                "where({condition}, {bounded}, {bounded})", "minimum({bounded}, {bounded})", "-{bounded}", "{bounded} ** 2",
                "({bounded} + {bounded}) / 2"),
    "gate": ("0.9 * sigmoid({value})", "{learned}", "{input} * 0.9", "0.5", "0.8 * tanh({value})", "{gate} * {bounded}",
             "-{gate}", "where({condition}, {gate}, {gate})", "exp(-1 - softplus({value}))", "1 / (2.5 + {bounded})",
             "maximum({gate}, {gate})"),
    "value": ("{sample}", "{sample} + {number}", "{value} + {value}", "{value} - {value}", "{bounded} * {value}",
              "{number} * {sample}", "-{value}", "{value} / {number}", "relu({value})", "silu({value})", "gelu({value})",
              "softplus({value})", "abs({value})", "maximum({value}, {value})", "minimum({value}, {value})",
              "logaddexp({value}, {value})", "where({condition}, {value}, {value})", "where({condition}, {bounded}, {value})",
              "where({condition}, {number}, {value})", "exp({bounded})", "expm1({bounded})",
              "log(1.5 + {bounded})", "log1p({bounded} / 2)", "sqrt(1.25 + {bounded})", "{value} / (2 + {bounded})",
              "{bounded} ** 3", "(1.5 + {bounded}) ** -2", "(1.5 + {bounded}) ** 0.5", "detach({value})", "{map}", "{bounded}"),
    "mapped": ("{map}", "sigmoid({map})", "tanh({map})", "{map} * {bounded}"),
    "linear": ("{gate} * {past}", "{past}", "{past} * {gate}", "{past} / 2", "-{linear}", "({linear} + {linear}) / 2",
               "{bounded} * {linear}", "({linear} - {linear}) * 0.5", "where({condition}, {linear}, {linear})"),
}

# What a feature of a cell adds. OFTEN: how many times a form counts that is added to those above.
OFTEN = 3
MORE: dict[str, dict[str, tuple[str, ...]]] = {
    "axis": {
        "bounded": ("tanh(sum({wide} * {bounded}))",),
        "value": ("sum({wide} * {bounded})", "sum({bounded} * {value} * {wide})"),
    },
    "complex": {
        "bounded": ("re({zbounded})", "im({zbounded})", "abs({zbounded})"),
        "value": ("re({zvalue})", "im({zvalue})", "abs({zvalue})", "re({zmap})"),
        "mapped": ("abs({zmap})", "re({zmap})"),
        "zbounded": ("0.7 * {zinput}", "exp(1j * {value})", "({bounded} + 1j * {bounded}) * 0.7", "{bounded} * {zbounded}",
                     "{zbounded} * {zbounded}", "conjugate({zbounded})", "{zbounded} ** 2", "({zbounded} - {zbounded}) / 2",
                     "where({condition}, {zbounded}, {zbounded})", "-{zbounded}"),
        "zgate": ("0.6 * {zinput}", "0.9 * exp(1j * {value})", "{gate} * {zbounded}", "exp(1j * {bounded} - softplus({value}))",
                  "0.7 * {zlearned}", "1 / (2.5 + {zbounded})", "(0.5 - 0.5j)"),
        "zvalue": ("{zsample}", "{zmap}", "{zvalue} + {zvalue}", "{zvalue} - {value}", "{zbounded} * {zvalue}",
                   "{value} + 1j * {zvalue}", "-{zvalue}", "{zvalue} / (2 + {zbounded})", "{zvalue} / {number}",
                   "sin({zbounded})", "cos({zbounded})", "exp({zbounded})", "conjugate({zvalue})", "detach({zvalue})",
                   "where({condition}, {zvalue}, {zvalue})", "where({condition}, {value}, {zvalue})",
                   "(1.5 + {zbounded}) ** -2", "{zbounded} ** 3", "{bounded} * {zvalue}"),
        "zlinear": ("{zgate} * {past}", "{past} / 2", "{gate} * {past}", "({zlinear} + {zlinear}) / 2", "-{zlinear}",
                    "{zbounded} * {zlinear}", "{zgate} * conjugate({past})", "{zgate} * re({past})", "{zgate} * im({past})",
                    "where({condition}, {zlinear}, {zlinear})"),
    },
    "axis, complex": {
        "zvalue": ("sum({zwide} * {zbounded})", "sum({wide} * {zbounded})"),
    },
    "algebra": {
        "folded": ("{fold}({past} + {bounded}, {value})", "{fold}({value}, {past})",
                   "{fold}({past} - {bounded}, {value}) + {bounded}", "{fold}({past}, {fold}({past} + {bounded}, {value}))",
                   "{bounded} + {fold}({value}, {learned} + {past})",
                   "{fold}(where({condition}, {past}, {bounded} + {past}), {value})"),
    },
    "first": {
        "condition": ("lr.first[t] > 0",),
        "gate": ("{gate} * (1 - lr.first[t])",),
        "value": ("where(lr.first[t], {value}, {bounded})", "lr.first[t] * {value}"),
    },
    "mask": {
        "condition": ("{mask} > 0",),
        "gate": ("{mask} * {gate}",),
        "value": ("{mask} * {value}", "where({mask}, {value}, {bounded})"),
    },
}
FEATURES = ("axis", "complex", "algebra", "both ways", "first", "mask")
# Pairs that lrdsl refuses. "16 bits" and "segments" are features of a call, not of a cell.
REFUSED = (
    {"first", "both ways"},
    {"complex", "16 bits"},
)
LEAVES = {"condition": 6}  # so many forms, not the first alone, may stand where a cell is to grow no deeper


def fits(features: frozenset[str]) -> bool:
    """Whether lrdsl takes them together."""
    return not any(pair <= features for pair in REFUSED)


def forms_of(features: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """The table for a cell with some features."""
    table = dict(FORMS)
    for names, more in MORE.items():
        if set(names.split(", ")) <= features:
            for sort, forms in more.items():
                table[sort] = table[sort] + forms * OFTEN if sort in table else forms
    return table
