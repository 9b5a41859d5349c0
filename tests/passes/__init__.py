"""Tests of `lrdsl/passes`: one file a file."""
