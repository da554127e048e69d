"""The process that owns one device: replicas, their KV memory, and the engine that runs them."""
