"""The obstore client of an address. Credentials and endpoints come from the environment, by each store's own names."""

from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, HTTPStore, ObjectStore, S3Store

from mesh.checkpoint.errors import OriginRefused
from mesh.checkpoint.origins.address import Address, Scheme
from mesh.checkpoint.origins.blame import CREDENTIALS, cause_of
from mesh.checkpoint.origins.patience import (
    ANSWER_S,
    CONNECT_S,
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    RETRIES,
    SILENCE_S,
)

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

RETRY: "RetryConfig" = {
    "max_retries": RETRIES,
    "retry_timeout": timedelta(seconds=ANSWER_S),
    "backoff": {
        "init_backoff": timedelta(seconds=FIRST_WAIT_S),
        "max_backoff": timedelta(seconds=LONGEST_WAIT_S),
        "base": 2,
    },
}


def client_of(address: Address) -> ObjectStore:
    """Asks no server. Raises OriginRefused if the environment's settings cannot be used."""
    try:
        return _made(address)
    except BaseError as error:
        raise OriginRefused(f"{address} cannot be asked: {cause_of(error)}; {CREDENTIALS[address.scheme]}") from error


def _made(address: Address) -> ObjectStore:
    prefix, options = address.path or None, _options(address.scheme)
    match address.scheme:
        case Scheme.S3:
            return S3Store(address.host, prefix=prefix, client_options=options, retry_config=RETRY)
        case Scheme.GS:
            return GCSStore(address.host, prefix=prefix, client_options=options, retry_config=RETRY)
        case Scheme.AZ:
            return AzureStore(address.host, prefix=prefix, client_options=options, retry_config=RETRY)
        case _:
            return HTTPStore(str(address), client_options=options, retry_config=RETRY)


def _options(scheme: Scheme) -> "ClientConfig":
    """https stays https, also when redirected; an object store's endpoint without TLS was chosen by the operator."""
    return {
        "allow_http": scheme is not Scheme.HTTPS,
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "read_timeout": timedelta(seconds=SILENCE_S),
        "timeout": timedelta(seconds=ANSWER_S),
        "user_agent": "whimbrel",
    }
