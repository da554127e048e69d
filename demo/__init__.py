"""The demo model: its text, its training, and a factory of tiny checkpoints of other architectures."""
