"""Torch: one op a Program, cells as functions, cells as modules. The only part of lrdsl that imports torch."""
