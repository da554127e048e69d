"""Where a model lies in other formats than the Hugging Face directory that it was made as, and how it gets there."""

from pathlib import Path


def shards(directory: Path) -> list[Path]:
    """Its safetensors files."""
    return sorted(directory.glob("*.safetensors"))


def torch_file(directory: Path) -> Path:
    """What torch.save wrote."""
    return directory.with_name(f"{directory.name}.bin")


def tensorizer_file(directory: Path) -> Path:
    """What tensorizer wrote."""
    return directory.with_name(f"{directory.name}.tensors")


def write_torch(directory: Path) -> None:
    """From the safetensors, in one file, unless it is there."""
    import torch  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    path = torch_file(directory)
    if not path.exists():
        tensors = {name: tensor for shard in shards(directory) for name, tensor in load_file(shard).items()}
        torch.save(tensors, path)


def write_tensorizer(directory: Path) -> None:
    """From torch's file, unless it is there. Runs where tensorizer is installed."""
    import torch  # noqa: PLC0415
    from tensorizer import TensorSerializer  # noqa: PLC0415

    path = tensorizer_file(directory)
    if path.exists():
        return
    serializer = TensorSerializer(str(path))
    serializer.write_state_dict(torch.load(torch_file(directory), weights_only=True, mmap=True))
    serializer.close()
