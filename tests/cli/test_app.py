"""The command line itself: help and global options."""

import pytest
from typer.testing import CliRunner

from cli.app import COMMANDS, Command, make_app


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_help_of_each_command_ends_with_an_example(command: Command) -> None:
    shown = CliRunner().invoke(make_app(), [command.name, "--help"], env={"COLUMNS": "120"})
    assert shown.exit_code == 0
    assert f"Example: {command.example}" in shown.stdout
    assert command.example.startswith(f"whimbrel {command.name}")


def test_the_help_names_the_gateway_option_and_its_variable() -> None:
    shown = CliRunner().invoke(make_app(), ["--help"])
    assert "--gateway" in shown.stdout
    assert "WHIMBREL_GATEWAY" in shown.stdout


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":50051", "localhost:http", "localhost:70000"])
def test_an_address_without_host_or_port_is_refused_before_anything_is_called(address: str) -> None:
    shown = CliRunner().invoke(make_app(), ["--gateway", address, "models"])
    assert shown.exit_code == 2
    assert "HOST:PORT" in shown.output
