"""Commands to try on a running cluster, ready to paste into another terminal at the repository's root. Pure."""

from dataclasses import dataclass
from pathlib import Path

SERVICE = "whimbrel.gateway.v1"


@dataclass(frozen=True, slots=True)
class TryOut:
    """What a command shows, and the command."""

    about: str
    line: str


def tryouts(bin_dir: Path | None, gateway_port: int, default_port: int, model: str) -> list[TryOut]:
    """The commands; `bin_dir` holds their programs, None leaves them to the PATH.

    Those that need buf are left out when it is not there.
    """
    prefix = f"{bin_dir}/" if bin_dir else ""
    gateway = "" if gateway_port == default_port else f" --gateway 127.0.0.1:{gateway_port}"
    whimbrel = f"{prefix}whimbrel{gateway}"
    ours = [
        TryOut("ask a model; the first answer starts it", f'{whimbrel} generate {model} "What is a whimbrel?"'),
        TryOut("what runs where", f"{whimbrel} status"),
        TryOut("what can be asked", f"{whimbrel} models"),
    ]
    python = TryOut("from Python", f"{prefix}python -c '{_snippet(gateway_port, model)}'")
    with_buf = bin_dir is None or (bin_dir / "buf").exists()
    return [*ours, *(_buf(prefix, gateway_port, model) if with_buf else ()), python]


def _buf(prefix: str, port: int, model: str) -> tuple[TryOut, ...]:
    """gRPC by reflection, without our code."""
    curl = f"{prefix}buf curl --protocol grpc --http2-prior-knowledge"
    url = f"http://127.0.0.1:{port}/{SERVICE}"
    asked = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "What is a whimbrel?"}}]}}'
    return (
        TryOut("the catalogue by reflection alone", f"{curl} {url}.ModelService/List"),
        TryOut("a streamed answer by reflection alone", f"{curl} -d '{asked}' {url}.GenerationService/Chat"),
    )


def _snippet(port: int, model: str) -> str:
    """One line of Python without single quotes."""
    return (
        f"import grpc; from {SERVICE} import gateway_pb2 as pb, gateway_pb2_grpc as rpc; "
        f'stub = rpc.GenerationServiceStub(grpc.insecure_channel("127.0.0.1:{port}")); '
        'turn = pb.ChatMessage(role="user", content="Where do whimbrels nest?"); '
        f'asked = pb.ChatRequest(model="{model}", messages=[turn]); '
        'print("".join(event.delta.text for event in stub.Chat(asked)))'
    )
