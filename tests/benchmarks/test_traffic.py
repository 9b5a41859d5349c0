"""Bytes of 16-bit kernels: half for sequences, and for nothing else."""

from __future__ import annotations

import shutil

import pytest

from benchmarks.traffic import count


@pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler for the emulator")
@pytest.mark.long
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sequences_of_16_bits_are_half_the_bytes(dtype: str) -> None:
    """What chunks tell each other, states and partial sums stay; gilr_lstm keeps one state in full for the backward pass."""
    for cell, share in (("linear_scan", 0.5), ("gilr_lstm", None)):
        wide, narrow = (count([cell], (1, 600, 32), d) for d in ("float32", dtype))
        for a, b in zip(wide, narrow, strict=True):
            assert (a.kernel, a.strategy, a.told) == (b.kernel, b.strategy, b.told)
            kept = 4 * (a.kernel in ("gilr_lstm_2", "gilr_lstm_2_backward"))
            assert b.floor == (a.floor - kept) / 2 + kept and (share is None or b.floor == share * a.floor)
            if a.strategy == "serial":  # what is not a sequence is little
                assert abs(b.floor * b.multiple - b.rest - (a.floor * a.multiple - a.rest - kept) / 2 - kept) < 0.05
