"""Tests of `lrdsl/cells`: one file a file."""
