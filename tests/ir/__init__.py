"""Tests of `lrdsl/ir`: one file a file."""
