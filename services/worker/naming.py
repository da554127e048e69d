"""What the engine calls a replica: while an update is under way, a worker may hold two versions of one model."""


def replica_name(model: str, digest: str) -> str:
    """Unlike for any two; a model's name has no "@"."""
    return f"{model}@{digest}"
