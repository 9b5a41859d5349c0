"""Tests of `lrdsl/frontend`: one file a file."""
