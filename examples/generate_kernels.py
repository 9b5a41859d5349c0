"""Generate kernels: a cell's CUDA and C++ as files, and every stage on the way to them.

    python examples/generate_kernels.py [directory]

Neither a compiler nor a GPU is needed: what is written is text, the same bytes each time.
"""

import os
import sys
from pathlib import Path

import lrdsl as lr

TARGETS = {"cuda": "cu", "cpu": "cpp"}


def main(directory: str = "out/kernels") -> None:
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    cell = lr.cells.gilr_lstm

    for target, suffix in TARGETS.items():
        compiled = lr.compile(cell, target, dtype="float32")
        for stage in ("forward", "backward"):
            path = place / f"{cell.name}_{stage}.{suffix}"
            path.write_text(compiled.source(stage), encoding="utf-8")
            print(f"{path}: {compiled.source(stage).count('__global__')} CUDA kernels" if target == "cuda" else path)

    print(f"\nstages: {' -> '.join(compiled.stages)}")
    print(f"\nthe plan, which is the same for every target\n\n{compiled.stages['plan']}")

    # The same stages as files: LRDSL_DUMP may be set in the shell for any program that uses lrdsl.
    os.environ["LRDSL_DUMP"] = str(place / "dump")
    lr.compile(cell, "cuda", arch="sm_90")
    del os.environ["LRDSL_DUMP"]
    print("\ndumped")
    for path in sorted((place / "dump").rglob("*.*")):
        print(f"  {path}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
