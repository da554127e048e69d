"""Shared memory to device memory: what a copying device reaches of its own limit."""
