"""What the speed claims rest on: python -m benchmarks.<name> [--quick] [--json]."""
