"""The emulated backend: blocks that talk to each other through memory. Right under every schedule, or caught under one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lrdsl.backends.emulated import SCHEDULES, EmulationError, Schedule

from .test_emulated import caught, run

pytestmark = pytest.mark.usefixtures("compiler")

CHUNKS = 23
# y[t] = x[0] + … + x[t], one step a block: a ticket, then a message {sum, flag}, then a look back until the flag says that
# the sum begins with the first step.
SUMS = """__shared__ Index ticket;
if (i == 0) ticket = atomicAdd(a.scratch, 1u);
__syncthreads();
const Index t = ticket;
uint4 *messages = (uint4 *)(a.scratch + 4) + i;
real sum = a.x[t * a.x_time + i];
uint4 m = make_uint4(__float_as_uint(sum), 0, 0, t ? 1 : 2);
emu_store_relaxed(messages + t * n, m);
for (Index s = t - 1; s >= 0; --s) {
  do {
    emu_load_relaxed(messages + s * n, m);
  } while (m.w == 0);
  sum += __uint_as_float(m.x);
  if (m.w == 2) break;
}
if (t) {
  m = make_uint4(__float_as_uint(sum), 0, 0, 2);
  emu_store_relaxed(messages + t * n, m);
}
a.y[t * a.y_time + i] = sum;"""


def change(old: str, new: str) -> str:
    """SUMS with a bug."""
    assert SUMS.count(old) == 1
    return SUMS.replace(old, new)


def right(body: str, schedule: Schedule) -> bool:
    """Whether the sums are what they should be. They are whole numbers: no order of additions changes them."""
    y, _ = run(body, schedule, T=CHUNKS, chunk=1)
    return bool((y == np.cumsum(np.arange(CHUNKS * 32).reshape(CHUNKS, 32), 0)).all())


def seeds(schedule: Schedule, body: str, found: Callable[[str, Schedule], Any], count: int = 20) -> int:
    """Under how many seeds something is found."""
    return sum(bool(found(body, replace(schedule, seed=k))) for k in range(count))


def caught_or_wrong(body: str, schedule: Schedule) -> bool:
    try:
        return not right(body, schedule)
    except EmulationError:
        return True


WEAK = SCHEDULES[3]
HALVES = """{
  volatile unsigned long long *w = (volatile unsigned long long *)(messages + t * n);
  const unsigned long long sum_of = m.x, flag_of = (unsigned long long)m.w << 32;
  FIRST; BETWEEN
  SECOND;
}"""


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.threads}-{s.blocks}")
def test_a_chain_of_blocks(schedule: Schedule) -> None:
    assert all(right(SUMS, replace(schedule, seed=seed)) for seed in range(5))


def test_late_blocks_look_far_back() -> None:
    """Where early blocks starve, they are asked for more often than where they come first."""
    polls = [run(SUMS, s, T=CHUNKS, chunk=1)[1].polls for s in (Schedule(), Schedule(blocks="starved", resident=16))]
    assert polls[0] == 32 * (CHUNKS - 1) and polls[1] > 3 * polls[0]


def test_a_block_number_in_the_place_of_a_ticket() -> None:
    """Where blocks begin in another order and are not all resident, the first ones wait for others that cannot begin."""
    body = change("if (i == 0) ticket = atomicAdd(a.scratch, 1u);", "if (i == 0) ticket = blockIdx.x;")
    body = body.replace("m);\n  } while", "m);  // here\n  } while")
    assert right(body, Schedule()) and right(body, Schedule("random", "random", resident=CHUNKS))
    error = caught(body, Schedule("reversed", "reversed", resident=3), T=CHUNKS, chunk=1)
    assert error.what == f"livelock: the 3 resident blocks only poll, and {CHUNKS - 3} have not begun"
    assert "block 22: 32 threads polling, line" in str(error)


def test_a_missing_barrier() -> None:
    body = change("__syncthreads();\nconst Index t = ticket;", "const Index t = ticket;  // here")
    body = body.replace("1u);", "1u);  // here")
    for schedule in SCHEDULES:
        assert "shared memory" in caught(body, schedule, T=CHUNKS, chunk=1).what


@pytest.mark.parametrize("order", ["data first", "flag first"])
def test_a_message_in_two_halves_is_torn(order: str) -> None:
    """Plain stores come late too. The numbers are right where memory is not weak; and where it is, with a fence between."""
    store = "emu_store_relaxed(messages + t * n, m);\nfor"
    halves = ("w[0] = sum_of", "w[1] = flag_of")
    first, second = halves if order == "data first" else halves[::-1]
    both = HALVES.replace("FIRST", first).replace("SECOND", second)
    torn, fenced = (change(store, both.replace("BETWEEN", between) + "\nfor") for between in ("", "__threadfence();"))
    assert right(torn, Schedule()) and (order == "flag first" or right(torn, SCHEDULES[2]))
    assert seeds(WEAK, torn, caught_or_wrong) > 0
    wrong = seeds(WEAK, fenced, caught_or_wrong)
    assert (wrong == 0) == (order == "data first")


def test_a_store_of_sixteen_bytes_is_torn_but_by_its_twin() -> None:
    body = change("emu_store_relaxed(messages + t * n, m);\nfor", "__stcg(messages + t * n, m);\nfor")
    assert right(body, Schedule()) and right(body, SCHEDULES[2])
    assert seeds(WEAK, body, caught_or_wrong) > 0


@pytest.mark.parametrize("release", ["", "__threadfence();", "__syncthreads();", "__threadfence();\n__syncthreads();",
                                     "__syncthreads();\nif (i == 0) __threadfence();"])
def test_what_a_fence_releases(release: str) -> None:
    """One thread says that the data of all are there. That takes a barrier and a fence; a fence before the barrier is enough
    as well, and one after it is for the stores of all threads before the barrier."""
    body = f"""unsigned *data = a.scratch + 4 + 128 * blockIdx.x, *flag = a.scratch;
    if (blockIdx.x == 0) {{
      data[i] = i + 1;
      {release}
      if (i == 0) *(volatile unsigned *)flag = 1;
      a.y[i] = 0;
    }} else {{
      while (*(volatile unsigned *)flag == 0) {{}}
      a.y[blockIdx.x * a.y_time + i] = (data - 128 * blockIdx.x)[i];
    }}"""

    def wrong(body: str, schedule: Schedule) -> bool:
        y, _ = run(body, schedule, T=2, chunk=1)
        return not (y[1] == np.arange(32) + 1).all()

    whole = "__syncthreads" in release and "__threadfence" in release
    found = seeds(Schedule("random", "random", resident=2, preempt=50, weak=True), body, wrong, 40)
    assert (found == 0) == whole, found


def test_atomics_are_whole_under_weak_memory() -> None:
    """A counter by compare and swap, and a sum by addition, of all blocks."""
    body = """unsigned *count = a.scratch + 4, old = *(volatile unsigned *)count, seen;
    while ((seen = atomicCAS(count, old, old + 1)) != old) old = seen;
    a.y[blockIdx.x * a.y_time + i] = old;
    atomicAdd((float *)count + 1, 0.5f);
    atomicMin((int *)count + 2, -i);"""
    for schedule in SCHEDULES:
        y, counts = run(body, schedule, T=5, chunk=1)
        assert sorted(y.ravel()) == list(range(160))
        assert counts.atomics >= 3 * 160
