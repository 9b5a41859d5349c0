"""Table 3 of Martin & Cundy (2018): what must be remembered over 1,024, 8,192 and 1,048,576 steps, GILR-LSTM and LSTM.

    python -m examples.paper.memory                     both networks, 1,024 and 8,192 steps, 5 seeds
    python -m examples.paper.memory --cells gilr_lstm --lengths 1048576 --seeds 1
    python -m examples.paper.memory --quick             256 steps, one seed, some seconds, whatever has been learned by then

Run it in the root of this repository. A network has learned when five minibatches in a row are all right, as in the paper, and
then 256 fresh sequences as well; both are told. Lengths grow by fours from --curriculum to the one asked for; the paper has no
such thing, and its steps are counted too. `--curriculum 0` starts at the full length. A run that is stopped, however that is
done, goes on when the same command is given again. Results of all runs in --runs go to --out: memory-cpu.json, .md, .png.
"""

from __future__ import annotations

import argparse
import itertools
import math
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from . import memory_report as report
from .memory_run import UNITS, Different, Run, Settings

RESULTS = Path(__file__).with_name("results")
RATES = {"gilr_lstm": 0.01, "lstm": 0.003}  # of 0.01, 0.003 (three seeds each, 1,024 steps) the better one
AT_ONCE = 0.001  # without a curriculum
QUICK = 3.0  # seconds for each run


def main(arguments: Sequence[str] | None = None) -> int:
    said = read(arguments)
    torch.set_num_threads(said.threads)
    end = time.perf_counter() + 60 * said.limit_minutes
    learned = True
    for length, cell, seed in itertools.product(said.lengths, said.cells, range(said.seeds)):
        start = min(said.curriculum or length, length)
        rate = said.rate or (RATES[cell] if start < length else AT_ONCE)
        settings = Settings(cell, length, seed, start, said.hidden, said.batch, rate, first_only=said.first_only,
                            device=said.device)
        directory = said.runs / settings.name
        if said.fresh:
            shutil.rmtree(directory, ignore_errors=True)
        try:
            learned &= train(Run(settings, directory), time.perf_counter() + QUICK if said.quick else end)
        except Different as error:
            print(f"memory: {error}", file=sys.stderr)
            return 2
    print(report.write(report.gather(said.runs, said.device, said.quick), said.out))
    if not learned:
        print("stopped before everything was learned; the same command goes on")
    return 0


def read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.paper.memory", description=(__doc__ or "").split("\n")[0])

    def names(text: str) -> list[str]:
        found = text.split(",")
        if not set(found) <= set(RATES):
            raise argparse.ArgumentTypeError(f"cells are {', '.join(RATES)}")
        return found

    def numbers(text: str) -> list[int]:
        return [positive(n) for n in text.split(",")]

    def positive(text: str) -> int:
        if not text.isdecimal() or not int(text):
            raise argparse.ArgumentTypeError(f"{text!r} is not 1 or more")
        return int(text)

    parser.add_argument("--quick", action="store_true", help="see that everything works")
    parser.add_argument("--cells", type=names, default=list(RATES), help=f"some of {','.join(RATES)} (default all)")
    parser.add_argument("--lengths", type=numbers, help="numbers of steps (default 1024,8192)")
    parser.add_argument("--seeds", type=positive, help="runs of each (default 5)")
    parser.add_argument("--curriculum", type=int, default=64, help="the first length, 0 for no curriculum (default 64)")
    parser.add_argument("--first-only", action="store_true", help="e₁ comes nowhere but at the start")
    parser.add_argument("--hidden", type=positive, help="units of each layer (default 64)")
    parser.add_argument("--batch", type=positive, default=8, help="sequences in a minibatch (default 8, as in the paper)")
    parser.add_argument("--rate", type=float, help=f"Adam's (default {', '.join(f'{r} for {c}' for c, r in RATES.items())}; "
                                                      f"{AT_ONCE} without a curriculum)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="of torch (default all)")
    parser.add_argument("--limit-minutes", type=float, default=float("inf"), help="stop then; the same command goes on")
    parser.add_argument("--fresh", action="store_true", help="begin anew instead of going on")
    parser.add_argument("--runs", type=Path, help="where runs are kept, a directory each (default out/memory)")
    parser.add_argument("--out", type=Path, help=f"where results go (default {RESULTS.name}/ beside the program)")
    said = parser.parse_args(arguments)
    said.runs = said.runs or Path("out", "memory-quick" if said.quick else "memory")
    said.out = said.out or (Path("out", "paper") if said.quick else RESULTS)
    said.lengths = said.lengths or ([256] if said.quick else [1024, 8192])
    said.seeds = said.seeds or (1 if said.quick else 5)
    said.hidden = said.hidden or (32 if said.quick else UNITS)
    return said


def train(run: Run, end: float = math.inf, most: float = math.inf) -> bool:
    """Until it has learned; False where the time is over, or so many steps were made, before."""
    seen = sys.stdout.isatty()
    form = "{desc}: {n} {unit}, {elapsed}, {rate_fmt}{postfix}"
    with tqdm(desc=run.settings.name, initial=run.progress.steps + run.progress.tests, unit="batches", file=sys.stdout,
              bar_format=form, miniters=1, mininterval=0.5 if seen else 60.0) as bar:
        for said in run.go():
            bar.set_postfix_str(said, refresh=False)
            bar.update()
            if time.perf_counter() > end or run.progress.steps >= most:
                run.keep()
                break
    return run.done


if __name__ == "__main__":
    sys.exit(main())
