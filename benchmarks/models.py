"""Random models for benchmarks. Run as a module, it writes them: python -m benchmarks.models DIRECTORY SPEC ...

A SPEC is a Llama, a Moe, a Decoder, a Narrow or a Shaped as JSON; each model goes to the folder that its name says.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.child import child, reply


@dataclass(frozen=True, slots=True)
class Llama:
    """About that many billion weights, in bfloat16."""

    parameters_b: float
    seed: int = 0

    @property
    def name(self) -> str:
        """Its folder."""
        return f"llama-{self.parameters_b:g}b" + (f"-{self.seed}" if self.seed else "")

    def write(self, directory: Path) -> None:
        """In the Hugging Face format."""
        from demo.models import write_random_llama  # noqa: PLC0415  seconds of imports, only in the child

        write_random_llama(directory, self.parameters_b, seed=self.seed)


@dataclass(frozen=True, slots=True)
class Moe:
    """A mixture of experts in bfloat16: three small tensors an expert and layer."""

    layers: int
    experts: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"moe-{self.layers}x{self.experts}"

    def write(self, directory: Path) -> None:
        """In the Hugging Face format."""
        from demo.models import write_random_moe  # noqa: PLC0415

        write_random_moe(directory, self.layers, self.experts)


@dataclass(frozen=True, slots=True)
class Decoder:
    """A Llama for engines: 768 wide, with 32 000 words; 12 layers have about a hundred million weights."""

    dtype: str
    layers: int
    vocabulary: int = 32_000

    @property
    def name(self) -> str:
        """Its folder."""
        return f"decoder-{self.layers}-{self.dtype}"

    def write(self, directory: Path) -> None:
        """In the Hugging Face format."""
        from demo.models import write_random_decoder  # noqa: PLC0415

        write_random_decoder(directory, self.layers, self.vocabulary, self.dtype)


@dataclass(frozen=True, slots=True)
class Narrow:
    """A Llama with much KV for its arithmetic, and room for long prompts: for what moves between workers."""

    layers: int
    positions: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"narrow-{self.layers}"

    def write(self, directory: Path) -> None:
        """In the Hugging Face format."""
        from demo.models import write_random_narrow  # noqa: PLC0415

        write_random_narrow(directory, self.layers, self.positions)


@dataclass(frozen=True, slots=True)
class Shaped:
    """A Llama of exactly these sizes, in bfloat16."""

    shape: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"shaped-{self.shape}"

    def write(self, directory: Path) -> None:
        """In the Hugging Face format."""
        from demo.models import write_random_shaped  # noqa: PLC0415

        write_random_shaped(
            directory,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim,
            vocab_size=self.vocabulary,
            max_position_embeddings=self.positions,
        )


Spec = Llama | Moe | Decoder | Narrow | Shaped
SPEC: TypeAdapter[Spec] = TypeAdapter(Spec)


async def random_models(directory: Path, specs: Sequence[Spec]) -> list[Path]:
    """Writes them, unless they are there already; the paths, in order."""
    arguments = [str(directory), *(SPEC.dump_json(spec).decode() for spec in specs)]
    async with child("benchmarks.models", arguments) as writer:
        return [Path(await writer.answer()) for _ in specs]


async def random_llama(directory: Path, parameters_b: float) -> Path:
    """A random bfloat16 Llama of about that many billion weights; one that is there already is used again."""
    return (await random_models(directory, [Llama(parameters_b)]))[0]


def _written(directory: Path, spec: Spec) -> Path:
    """Under a temporary name first, so that a directory that is there is whole."""
    path = (directory / spec.name).absolute()
    if not path.is_dir():
        unfinished = path.with_name(f".{path.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        spec.write(unfinished)
        unfinished.rename(path)
    return path


if __name__ == "__main__":
    for argument in sys.argv[2:]:
        reply(str(_written(Path(sys.argv[1]), SPEC.validate_json(argument))))
