"""What of its environment a store lets an import see: the credentials of the source's own kind, and nothing else."""

from collections.abc import Mapping
from types import MappingProxyType

from mesh.checkpoint.origins.address import Address, Scheme

NETWORK = (
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
HUB = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HUB_DISABLE_TELEMETRY",
)  # fmt: skip
NAMES: Mapping[Scheme, tuple[str, ...]] = MappingProxyType(
    {Scheme.HF: HUB, Scheme.GS: ("HOME",)}  # gcloud's own login lies below it
)
PREFIXES: Mapping[Scheme, tuple[str, ...]] = MappingProxyType(
    {Scheme.S3: ("AWS_",), Scheme.GS: ("GOOGLE_",), Scheme.AZ: ("AZURE_",)}
)
"""Whatever starts so belongs to the store of that kind."""


def environment_for(address: Address, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of `environ` that reading `address` may need. All but a hub's source leave the hub alone."""
    if address.scheme is Scheme.FILE:
        return {"HF_HUB_OFFLINE": "1"}
    named = {*NETWORK, *NAMES.get(address.scheme, ())}
    prefixes = PREFIXES.get(address.scheme, ())
    seen = {name: value for name, value in environ.items() if name in named or name.startswith(prefixes)}
    return seen if address.scheme is Scheme.HF else seen | {"HF_HUB_OFFLINE": "1"}
