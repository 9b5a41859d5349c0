"""Runners of Programs and generated text; they take addresses and sizes, never tensors."""
