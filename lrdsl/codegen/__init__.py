"""From Kernels to text."""
