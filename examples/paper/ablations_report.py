"""The results of `ablations` as tables and learning curves."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from . import common
from .ablations_parts import DELAYS, NEWTON, SEQUENTIAL, TRAINED
from .memory_report import smooth, spread, until
from .memory_run import Phase

Rows = Sequence[common.Record]
READ = dict(zip(DELAYS, ("t-1 (text)", "t (code)"), strict=True))
MEMORIES = "Mean ± standard deviation over the seeds that have learned; all lengths from {start} on count, and the tests."


def of(record: common.Record, part: str, has: str) -> Rows:
    """The rows of a part that say something of this kind."""
    return [row for row in record["rows"] if row["part"] == part and has in row]


def render(record: common.Record) -> str:
    """A table for each part that was done."""
    return "\n\n".join([*delays(of(record, "delay", "loss")), *digits(record), *precisions(record)])


def delays(rows: Rows) -> Iterator[str]:
    """Problem 2b, the surrogate read at t-1 and at t."""
    if rows:
        yield f"**The delay: problem 2b at {rows[0]['length']:,} steps**, {rows[0]['hidden']} units. " + \
            MEMORIES.format(start=rows[0]["start"])
        yield learned("surrogate read at", [(READ[cell], [r for r in rows if r["cell"] == cell]) for cell in DELAYS])
        one, other = ({r["seed"]: reached(r)[0] for r in rows if r["cell"] == cell and r["learned"]} for cell in DELAYS)
        if both := sorted(one.keys() & other.keys()):
            yield (f"From the same seed, on the same sequences, reading it at t took {spread(other[s] - one[s] for s in both)} "
                   f"iterations more ({len(both)} seed{'s' * (len(both) > 1)}).")


def learned(what: str, groups: Sequence[tuple[str, Rows]]) -> str:
    """Runs on problem 2b, a line a group."""
    return common.table([what, "learned", "iterations until 256 fresh are right", "minutes"], [
        [name, f"{len(done)} of {len(rows)}", spread(reached(r)[0] for r in done), spread(reached(r)[1] / 60 for r in done)]
        for name, rows in groups for done in [[r for r in rows if r["learned"]]]])


def reached(row: common.Record) -> tuple[int, float]:
    """Iterations and seconds of a run that has learned."""
    phases = [Phase(**phase) for phase in row["phases"]]
    return until(phases, phases[-1].fresh)


def digits(record: common.Record) -> Iterator[str]:
    """Accuracy, time and Newton's iterations of each network."""
    runs, times = of(record, "digits", "accuracy"), of(record, "digits", "seconds")
    for timed in times:
        names = list(dict.fromkeys(r["network"] for r in runs))
        seeds = len(runs) // len(names)
        yield (f"**Digits**: accuracy after the last of {len(runs[0]['accuracy'])} epochs on images that are held out, mean ± "
               f"standard deviation of {seeds} seed{'s' * (seeds > 1)}; milliseconds of a step of training, once trained; "
               "iterations of Newton's method on those images, the most of any layer and direction.")
        yield common.table(["network", "parameters", "% right", "ms a step", "iterations, first epoch", "last epoch", "most"], [
            [name, f"{own[0]['parameters']:,}", spread(100 * r["accuracy"][-1] for r in own),
             f"{1e3 * timed['seconds'][name]['median']:.3g}", *newton(own)]
            for name in names for own in [[r for r in runs if r["network"] == name]]])
        failed = sum(sum(r["failed"]) for r in runs)
        serial = timed["seconds"][SEQUENTIAL]["median"]
        yield (f"Newton's method gave up {failed} time{'s' * (failed != 1)}. With the weights that were learned by it, the "
               f"same recurrence solved one step after another takes {1e3 * serial:.3g} ms a step, "
               f"{common.ratio(serial / timed['seconds'][NEWTON]['median'])} of its time; the logits are {timed['apart']:.1e} "
               "of the largest apart.")


def newton(runs: Rows) -> list[str]:
    """Iterations of the runs of a network after the first epoch, after the last, and at most."""
    told = [r["iterations"] for r in runs if r["iterations"]]
    return [spread(own[0] for own in told), spread(own[-1] for own in told), str(max(map(max, told)))] if told else ["–"] * 3


def precisions(record: common.Record) -> Iterator[str]:
    """What each precision learns, and how far it is from float64."""
    runs, compared = of(record, "precision", "loss"), of(record, "precision", "errors")
    if not runs:
        return
    short = [r for r in runs if r["length"] < compared[0]["length"]]
    yield (f"**Precision: problem 2b at {short[0]['length']:,} steps**, {short[0]['hidden']} units, memories that last "
           f"{short[0]['longest']:,} steps from the start. " + MEMORIES.format(start=short[0]["start"]))
    yield learned("precision", [(name, [r for r in short if r["precision"] == name]) for name in TRAINED])
    yield (f"**Precision at {compared[0]['length']:,} steps**, one float32 network that has learned the above: the largest "
           f"difference from the same weights in float64 over the largest magnitude, mean ± standard deviation over "
           f"{len(compared[0]['seconds'])} batches of {compared[0]['batch']} (weights that are rounded to 16 bits count as "
           "errors); seconds for the gradients of a batch, GB of memory that they take; then the loss in each step of training "
           "from there, and right answers in all of them.")
    kinds = list(compared[0]["errors"][0])
    trained = {r["precision"]: r for r in runs if r not in short}
    yield common.table(["precision", *kinds, "s", "GB", "loss", "right"], [
        [r["precision"], *(about(e[kind] for e in r["errors"]) for kind in kinds), spread(r["seconds"]),
         f"{r['peak'] / 1e9:.2f}", *training(trained.get(r["precision"]))] for r in compared])


def about(errors: Any) -> str:
    """Mean ± standard deviation of small numbers."""
    found = list(errors)
    more = f" ± {statistics.stdev(found):.0e}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.1e}{more}" if any(found) else "0"


def training(row: common.Record | None) -> list[str]:
    """Losses and right answers of a run at the longest length."""
    return ["–", "–"] if row is None else [" ".join(f"{x:.2g}" for x in row["loss"]),
                                           f"{sum(row['right'])} of {row['batch'] * len(row['right'])}"]


def draw(record: common.Record, sheet: Any) -> None:
    """Learning curves of all parts."""
    sheet.set_size_inches(11, 8)
    (one, two), (three, four) = sheet.subplots(2, 2)
    runs = of(record, "precision", "loss")
    longest = max((r["length"] for r in runs), default=0)
    losses(one, "the delay", [(f"surrogate read at {READ[r['cell']]}", r) for r in of(record, "delay", "loss")])
    losses(three, "precisions", [(r["precision"], r) for r in runs if r["length"] < longest])
    losses(four, "on from float32", [(r["precision"], r) for r in runs if r["length"] == longest], keep=0.0)
    for k, (name, seeds) in enumerate(curves(of(record, "digits", "accuracy")).items()):
        wrong = [100 * (1 - statistics.mean(at)) for at in zip(*seeds, strict=True)]
        two.plot(range(1, len(wrong) + 1), wrong, ".-", color=f"C{k}", label=name)
    two.set(title="digits, mean of the seeds", xlabel="epoch", ylabel="% of held-out images misread", yscale="log")
    for ax in (one, two, three, four):
        ax.grid(alpha=0.3)
        common.legend(ax, fontsize=8)


def curves(rows: Rows) -> dict[str, list[list[float]]]:
    """Accuracy after each epoch of each seed, by network."""
    return {name: [r["accuracy"] for r in rows if r["network"] == name] for name in dict.fromkeys(r["network"] for r in rows)}


def losses(ax: Any, title: str, runs: Sequence[tuple[str, common.Record]], keep: float = 0.9) -> None:
    """The loss of every run on problem 2b, smoothed, in the colour of its kind."""
    kinds = list(dict.fromkeys(name for name, _ in runs))
    for name, row in runs:
        loss = smooth(row["loss"], keep)
        ax.plot(range(1, len(loss) + 1), loss, color=f"C{kinds.index(name)}", alpha=0.7, linewidth=1, label=name)
    said = f", {runs[0][1]['length']:,} steps" if runs else ""
    ax.set(title=f"problem 2b{said}: {title}", xlabel="iteration", ylabel="loss" + ", smoothed" * (keep > 0), yscale="log")
