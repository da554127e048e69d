"""Which sources imports may read: directories below the roots, addresses that start as the settings say."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from mesh.checkpoint.errors import BadAddress
from mesh.checkpoint.origins.address import Address, Scheme, is_public, parse
from mesh.errors import InvalidRequest, NotFound

NOT_ALLOWED = "SOURCE_NOT_ALLOWED"


class Sources:
    """Without roots any directory; of addresses only what starts with one of `urls`, at a slash."""

    def __init__(self, roots: Sequence[Path], urls: Sequence[str]) -> None:
        self._roots, self._urls = tuple(roots), tuple(urls)

    async def checked(self, source: str) -> str:
        """The address to read, links resolved. Raises InvalidRequest, or NotFound for a directory that is not there."""
        try:
            address = parse(source)
        except BadAddress as error:
            raise InvalidRequest.field("source", str(error), reason="BAD_ADDRESS") from error
        if address.scheme is Scheme.FILE:
            return str(await self._directory(address.path))
        self._check(address)
        return str(address)

    async def _directory(self, path: str) -> Path:
        directory = await asyncio.to_thread(Path(path).resolve)
        if self._roots and not any(directory.is_relative_to(root.resolve()) for root in self._roots):
            allowed = ", ".join(map(str, self._roots))
            raise InvalidRequest.field(
                "source", f"must lie below one of the store's source roots: {allowed}", reason=NOT_ALLOWED
            )
        if not await asyncio.to_thread(directory.is_dir):
            raise NotFound(f"the store's node has no directory {path}", reason="SOURCE_NOT_FOUND")
        return directory

    def _check(self, address: Address) -> None:
        """A scheme alone allows what has a name or a public number; our own networks must be listed host by host."""
        allowed = [url for url in self._urls if _starts(str(address), url)]
        if not allowed:
            listed = ", ".join(self._urls) or "none"
            raise InvalidRequest.field(
                "source", f"must start with one of the addresses that the store may read: {listed}", reason=NOT_ALLOWED
            )
        web = address.scheme in {Scheme.HTTP, Scheme.HTTPS}
        if web and not is_public(address) and all(url.endswith("://") for url in allowed):
            raise InvalidRequest.field(
                "source",
                f"{address.host} is no public host; list it in the store's WHIMBREL_SOURCE_URLS to have it read",
                reason=NOT_ALLOWED,
            )


def as_prefix(url: str) -> str:
    """A scheme and "://" as it is; what names more in the spelling that addresses get. Raises ValueError."""
    scheme, _, rest = url.partition("://")
    if not rest and scheme in set(Scheme) - {Scheme.FILE} and url != scheme:
        return url
    try:
        address = parse(url)
    except BadAddress as error:
        raise ValueError(f"{url} {error}") from error
    if address.scheme is Scheme.FILE:
        raise ValueError(f"{url} is a directory; list it in WHIMBREL_SOURCE_ROOTS")
    return str(address)


def _starts(address: str, prefix: str) -> bool:
    """At the end of a step, so that s3://models does not allow s3://models-of-others."""
    return address == prefix or address.startswith((f"{prefix}/", f"{prefix}@") if prefix[-1] != "/" else prefix)
