"""A container of Azurite, Azure's own emulator, where it is installed (npm install -g azurite)."""

import base64
import hmac
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import obstore
import pytest
from obstore.store import AzureStore

from mesh.checkpoint.convert import import_origin
from mesh.checkpoint.errors import NotACheckpoint, OriginRefused, OriginUnreachable
from mesh.checkpoint.origin import read_range
from mesh.checkpoint.origins import open_origin
from mesh.checkpoint.origins.address import parse
from mesh.checkpoint.origins.stores import client_of
from mesh.checkpoint.source import inspect

AZURITE = shutil.which("azurite-blob")
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # known to everybody
LISTENS = re.compile(r"successfully listen(?:s|ing) on (http://\S+)")

pytestmark = pytest.mark.skipif(AZURITE is None, reason="azurite is not installed")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running one."""
    location = tmp_path_factory.mktemp("azurite")
    command = [str(AZURITE), "--blobPort", "0", "--location", str(location), "--skipApiVersionCheck"]
    command += ["--disableTelemetry", "--silent"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = (LISTENS.search(line) for line in process.stdout)
            yield next(found[1] for found in said if found)
        finally:
            process.kill()


@pytest.fixture
def container(emulator: str, monkeypatch: pytest.MonkeyPatch, source: Path) -> str:
    """The model's address in a new container."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{emulator}/devstoreaccount1")
    _create(emulator)
    store = client_of(parse("az://models/tiny"))
    assert isinstance(store, AzureStore)
    for path in source.iterdir():
        obstore.put(store, path.name, path.read_bytes())
    return "az://models/tiny"


def test_an_import_from_a_container_is_the_import_of_the_directory(
    container: str, source: Path, digest: str, root: Path
) -> None:
    with closing(open_origin(container)) as origin:
        assert list(origin.names()) == sorted(path.name for path in source.iterdir())
        assert origin.identity == origin.identity
        assert import_origin(origin, root, on_progress=lambda _: None).digest == digest


def test_a_blob_that_is_replaced_under_an_import_ends_it(container: str) -> None:
    with closing(open_origin(container)) as origin:
        shard = inspect(origin).shards[0].file
        obstore.put(client_of(parse(container)), shard, bytes(origin.size(shard) or 0))
        with pytest.raises(OriginUnreachable, match="changed"):
            read_range(origin, shard, 0, 8)


def test_a_missing_container_and_a_wrong_key_are_told_apart(container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_origin("az://nobodys/x")) as origin, pytest.raises(NotACheckpoint, match="container does not"):
        inspect(origin)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "A" * 86 + "==")
    with closing(open_origin(container)) as origin, pytest.raises(OriginRefused, match="AZURE_STORAGE_ACCOUNT_KEY"):
        inspect(origin)


def _create(emulator: str) -> None:
    """obstore makes no containers; the emulator takes a request signed as Azure has it."""
    now = format_datetime(datetime.now(UTC), usegmt=True)
    headers = {"x-ms-date": now, "x-ms-version": "2021-08-06"}
    canonical = "".join(f"{name}:{value}\n" for name, value in headers.items())
    text = f"PUT{chr(10) * 12}{canonical}/devstoreaccount1/devstoreaccount1/models\nrestype:container"
    digest = hmac.new(base64.b64decode(KEY), text.encode(), "sha256").digest()
    headers["Authorization"] = f"SharedKey devstoreaccount1:{base64.b64encode(digest).decode()}"
    url = f"{emulator}/devstoreaccount1/models?restype=container"
    try:
        with urlopen(Request(url, method="PUT", headers=headers | {"Content-Length": "0"})):
            pass
    except HTTPError as error:
        with error:
            if error.code != 409:  # another test made it
                raise
