"""The commands that `up` prints. That they work is tested on a real cluster."""

import shlex
from pathlib import Path

from cli.tryouts import tryouts


def test_commands_name_the_programs_of_the_environment_and_another_port(tmp_path: Path) -> None:
    (tmp_path / "buf").touch()
    lines = [tryout.line for tryout in tryouts(tmp_path, 50999, 50051, "curlew")]
    words = [shlex.split(line) for line in lines]
    assert all(word[0].startswith(f"{tmp_path}/") for word in words)
    assert words[0][:5] == [f"{tmp_path}/whimbrel", "--gateway", "127.0.0.1:50999", "generate", "curlew"]
    assert all("50999" in line for line in lines)


def test_the_default_port_needs_no_option_and_a_missing_buf_no_command(tmp_path: Path) -> None:
    lines = [tryout.line for tryout in tryouts(tmp_path, 50051, 50051, "curlew")]
    assert not any("--gateway" in line or "/buf " in line for line in lines)
    assert any(line.startswith("buf curl") for line in [t.line for t in tryouts(None, 50051, 50051, "curlew")])


def test_the_python_line_compiles() -> None:
    [line] = [tryout.line for tryout in tryouts(None, 50051, 50051, "curlew") if tryout.about == "from Python"]
    compile(shlex.split(line)[2], "tryout", "exec")
