"""Source addresses, pure: which there are, and what none may have. Which may be read is the store's to say."""

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import SplitResult, unquote, urlsplit

from mesh.checkpoint.errors import BadAddress

MOST_CHARS = 2048
PORTS = {"https": 443, "http": 80}
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})", re.ASCII)
_REPOSITORY = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,249}", re.ASCII)


class Scheme(StrEnum):
    """What an address starts with."""

    FILE = "file"
    S3 = "s3"
    GS = "gs"
    AZ = "az"
    HTTPS = "https"
    HTTP = "http"
    HF = "hf"


SPELLINGS = (
    "an absolute path, file:///directory, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, "
    "https://host/directory, http://host/directory or hf://organisation/name@revision"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a source lies. No credential is in it: those come from the environment of whoever reads."""

    scheme: Scheme
    host: str  # the bucket, the container, host or host:port, organisation/name; "" for a file
    path: str  # below the host, without a slash at either end; of a file: absolute
    revision: str = ""  # of a hub's repository: branch, tag or commit

    def __str__(self) -> str:
        if self.scheme is Scheme.FILE:
            return self.path
        where = f"{self.host}/{self.path}" if self.path else self.host
        return f"{self.scheme}://{where}" + (f"@{self.revision}" if self.revision else "")


def parse(text: str) -> Address:
    """The address that `text` spells. Raises BadAddress; no file or server is looked at."""
    if "\0" in text:
        raise BadAddress("must have no NUL in it")
    if text.startswith("/"):
        return Address(Scheme.FILE, "", text)
    if len(text) > MOST_CHARS or any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise BadAddress(f"must have no control characters, and at most {MOST_CHARS} others")
    name, mark, _ = text.partition("://")
    if not mark or name.lower() not in set(Scheme):
        raise BadAddress(f"must be the absolute path of a Hugging Face directory, or an address: {SPELLINGS}")
    scheme = Scheme(name.lower())
    if scheme is Scheme.HF:
        return _hub(text[len("hf://") :])
    try:
        split = urlsplit(text)
        if "@" in split.netloc or "?" in text or "#" in text:
            raise BadAddress(
                "must have no user name, password, query or fragment: addresses are shown and recorded; "
                "set credentials in the environment of the store instead"
            )
        return _file(split) if scheme is Scheme.FILE else _remote(scheme, split)
    except ValueError as error:
        raise BadAddress(f"is no {scheme}:// address: {error}") from error


def is_public(address: Address) -> bool:
    """Whether a web address names its host, or by a number that is reachable from everywhere.

    What a name leads to is not looked up: it may lead elsewhere the next time.
    """
    name = _hostname(address.host)
    if name == "localhost" or name.endswith(".localhost"):
        return False
    try:
        number = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return True
    return (getattr(number, "ipv4_mapped", None) or number).is_global


def _hub(rest: str) -> Address:
    repository, mark, revision = rest.partition("@")
    repository = repository.rstrip("/")
    if not _REPOSITORY.fullmatch(repository) or "--" in repository or ".." in repository:
        raise BadAddress("must look like hf://organisation/name, or hf://organisation/name@revision")
    if mark and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise BadAddress("must have a branch, a tag or a commit after the '@'")
    return Address(Scheme.HF, repository, "", revision)


def _file(split: SplitResult) -> Address:
    if split.netloc not in {"", "localhost"} or not split.path.startswith("/"):
        raise BadAddress("must be file:/// and an absolute path of the store's machine")
    path = unquote(split.path)
    if "\0" in path:
        raise BadAddress("must have no NUL in it")
    return Address(Scheme.FILE, "", path)


def _remote(scheme: Scheme, split: SplitResult) -> Address:
    path = split.path.removeprefix("/").removesuffix("/")
    web = scheme in {Scheme.HTTP, Scheme.HTTPS}
    for step in path.split("/") if path else ():
        plain = unquote(step) if web else step
        if plain in {"", ".", ".."} or "/" in plain or "\\" in plain or (web and "%" in plain):
            raise BadAddress("must have no empty step, '.', '..', backslash or encoded '%' in its path")
    if web:
        return Address(scheme, _web_host(scheme, split), path)
    if not _BUCKET.fullmatch(split.netloc) or ".." in split.netloc:
        raise BadAddress(f"must name a bucket or container after {scheme}://")
    return Address(scheme, split.netloc, path)


def _web_host(scheme: Scheme, split: SplitResult) -> str:
    """host or host:port, in lower case. Numbers must be spelled the usual way, or a check of them could be fooled."""
    name, port = split.hostname or "", split.port
    if ":" in name and "%" not in name:
        name = f"[{ipaddress.IPv6Address(name)}]"
    elif not _HOST.fullmatch(name):
        raise BadAddress("must have the name of a host, in ASCII")
    elif re.fullmatch(r"[0-9]+|0x[0-9a-f]*", name.rstrip(".").rpartition(".")[2]):
        name = str(ipaddress.IPv4Address(name))
    return name if port in {None, PORTS[scheme]} else f"{name}:{port}"


def _hostname(host: str) -> str:
    return (host if host.endswith("]") else host.rpartition(":")[0] if ":" in host else host).rstrip(".")
