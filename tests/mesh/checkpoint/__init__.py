"""Tests of mesh/checkpoint."""
