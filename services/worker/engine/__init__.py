"""Continuous batching over several resident models. Knows neither gRPC nor Redis; speaks tokens."""
