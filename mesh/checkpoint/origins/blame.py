"""What an error of obstore means to whoever imports: which of our errors, and what to do about it."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from obstore.exceptions import BaseError, NotSupportedError, PreconditionError

from mesh.checkpoint.errors import CheckpointError, NotACheckpoint, OriginRefused, OriginUnreachable
from mesh.checkpoint.origins.address import Scheme

CREDENTIALS: Mapping[Scheme, str] = MappingProxyType(
    {
        Scheme.S3: "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, beside AWS, AWS_ENDPOINT_URL in the "
        "store's environment, or AWS_SKIP_SIGNATURE=true for a public bucket",
        Scheme.GS: "set GOOGLE_APPLICATION_CREDENTIALS in the store's environment, or GOOGLE_SKIP_SIGNATURE=true for "
        "a public bucket",
        Scheme.AZ: "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_KEY in the "
        "store's environment, or AZURE_SKIP_SIGNATURE=true for a public container",
        Scheme.HTTP: "it must be readable by HEAD and GET without a login",
        Scheme.HTTPS: "it must be readable by HEAD and GET without a login",
    }
)
"""What to do when a server wants to know who asks."""
_STATUS = re.compile(r"status code: (\d{3}) ([A-Z][A-Za-z ]*)?")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_LOGIN = ("token request", "169.254.169.254", "/latest/api/token", "credentials")
_MISSING = {"NoSuchBucket": "bucket", "ContainerNotFound": "container"}
CERTIFICATE = "InvalidCertificate"
REFUSING = frozenset({400, 401, 403, 405, 407, 451})  # 400: S3 says so of expired tokens and wrong regions
GONE = frozenset({0, 404, 410})  # obstore also says that what may not be asked for is not found
MOST_CHARS = 200


def blame(error: Exception, place: str, scheme: Scheme) -> CheckpointError:
    """Our error for one that reading `place` raised; nothing of the server's that might be secret is repeated."""
    cause = cause_of(error)
    if isinstance(error, PreconditionError):
        return changed(place)
    if isinstance(error, NotSupportedError):
        return OriginRefused(f"{place} cannot be read in pieces: the server ignores Range; use one that honours it")
    if status_of(error) in REFUSING or _is_about_login(error):
        return OriginRefused(f"{place} may not be read ({cause}); {CREDENTIALS[scheme]}")
    missing = next((f": its {what} does not exist" for code, what in _MISSING.items() if code in cause), "")
    if missing or (isinstance(error, FileNotFoundError) and status_of(error) in GONE):
        return NotACheckpoint(f"{place} is not there{missing} ({cause})")
    if CERTIFICATE in str(error):
        return OriginRefused(f"{place} could not be read: {cause}")
    return OriginUnreachable(f"{place} could not be read: {cause}; see that its server runs, and try again")


def changed(place: str) -> OriginUnreachable:
    """The error for a file that is not what it was at first sight."""
    return OriginUnreachable(f"{place} changed while it was imported; import it again")


def cause_of(error: Exception) -> str:
    """The end of what obstore says, without addresses: in those of Azure there may be signatures."""
    text = str(error)
    status = _STATUS.search(text)
    if status is not None:
        code = _CODE.search(text)
        return f"status {status[1]}" + (f" {code[1]}" if code else "")
    first = text.partition("\n")[0].rpartition(" - ")[2]
    if CERTIFICATE in text:
        return "its certificate is not trusted; set SSL_CERT_FILE to its authority's"
    deepest = re.search(r'message: "([^"]{1,100})"', text)
    said = re.sub(r"\S+://\S+", "…", first) + (f" ({deepest[1]})" if deepest else "")
    return said[:MOST_CHARS]


def status_of(error: Exception) -> int:
    """The HTTP status it tells of; 0 if none."""
    found = _STATUS.search(str(error))
    return int(found[1]) if found else 0


def _is_about_login(error: Exception) -> bool:
    return isinstance(error, BaseError) and any(word in str(error).partition("\n")[0] for word in _LOGIN)
