"""Look inside: what was found in a cell, the generated lines of its recurrence, and what a refusal says.

    python examples/inspect_source.py
"""

import lrdsl as lr
from lrdsl import sigmoid, t, tanh


@lr.cell
def leaky(x: lr.Input, drive: lr.Input, v: lr.State, *, leak: lr.Vector = lr.Vector(init=2.0)):
    """A leaky integrator whose leak also depends on a second input."""
    a = sigmoid(leak + drive[t])
    v[t] = a * v[t - 1] + (1 - a) * x[t]
    return v[t]


def kernel(text: str) -> list[str]:
    """The lines of the kernels themselves, without the helpers that every generated file opens with."""
    return text[text.index("\nnamespace "):].splitlines()


def computation(text: str) -> list[str]:
    """What a kernel computes at a step: the lines between the comments `// compute` and `// write`."""
    lines = [line.strip() for line in kernel(text)]
    return lines[lines.index("// compute"):lines.index("// write")]


def main() -> None:
    print(leaky.explain())
    for target in ("cuda", "cpu"):
        for stage in ("forward", "backward"):
            text = leaky.source(target, stage)
            print(f"\n{target} {stage}, {len(kernel(text))} lines without helpers; each step")
            print("\n".join(f"    {line}" for line in computation(text)))

    print("\nWhat is not linear is refused where it is to run, at its line. Declaring it is no mistake:\n")

    @lr.cell
    def bent(x: lr.Input, v: lr.State, *, gain: lr.Vector = lr.Vector(init=1.0)):
        v[t] = tanh(gain * v[t - 1] + x[t])
        return v[t]

    try:
        lr.function(bent)
    except lr.NotLinear as error:
        print(f"{type(error).__name__}: {error}")

    print("\nMistakes of writing are reported at once, all of them:\n")
    try:
        @lr.cell
        def careless(x: lr.Input, v: lr.State, w: lr.State, unused: lr.Vector):
            v[t] = v[t + 1] + v[t - 1] + x[t]
            return v[t]
    except lr.CellError as error:
        print(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
