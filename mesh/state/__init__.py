"""What the cluster keeps in Redis, and the only code that touches it."""
