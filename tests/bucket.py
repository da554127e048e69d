"""A real S3 server for tests: moto's, as a child process on a loopback port, filled and asked by boto3."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.request import Request, urlopen

import boto3

KEY = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
LISTENS = re.compile(r"Running on http://127\.0\.0\.1:(\d+)")


@dataclass(slots=True)
class Bucket:
    """One bucket of a server that can die and come back on its port, empty."""

    port: int
    process: subprocess.Popen[str]
    name: str = "models"

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a reader needs to be told."""
        return {**KEY, "AWS_ENDPOINT_URL": self.endpoint}

    @property
    def client(self) -> Any:
        """boto3's."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=KEY["AWS_REGION"],
            aws_access_key_id=KEY["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEY["AWS_SECRET_ACCESS_KEY"],
        )

    def put(self, directory: Path, prefix: str) -> str:
        """Copies a directory below a prefix; returns its address."""
        client = self.client
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            client.put_object(
                Bucket=self.name, Key=f"{prefix}/{path.relative_to(directory).as_posix()}", Body=path.read_bytes()
            )
        return f"s3://{self.name}/{prefix}"

    def demand_keys(self) -> None:
        """From now on only keys of a user with rights are let in; there is no such user."""
        self._let_in(b"0")

    def demand_nothing(self) -> None:
        """From now on any key will do, as at the start."""
        self._let_in(b"inf")

    def _let_in(self, requests: bytes) -> None:
        """So many requests are taken without looking at their keys."""
        url, kind = f"{self.endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        with urlopen(Request(url, data=requests, headers=kind, method="POST")):
            pass

    def kill(self) -> None:
        """SIGKILL. Returns when it is gone."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """On the same port; what was stored is lost."""
        _, self.process = _start(self.port)
        self.client.create_bucket(Bucket=self.name)


@contextmanager
def bucket() -> Iterator[Bucket]:
    """A server with one empty bucket."""
    made = Bucket(*_start(0))
    try:
        made.client.create_bucket(Bucket=made.name)
        yield made
    finally:
        made.kill()


def _start(port: int) -> tuple[int, subprocess.Popen[str]]:
    """Its port, and the process. What it writes is read to the end, or it would stop when a pipe is full."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if found := LISTENS.search(line):
            threading.Thread(target=_drain, args=[process.stderr], daemon=True).start()
            return int(found[1]), process
    raise AssertionError("the S3 server did not start")


def _drain(stderr: IO[str]) -> None:
    with stderr:
        for _ in stderr:
            pass
