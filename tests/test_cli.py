"""The commands echo, send and recv, as processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import proclink
from command_line import PATIENCE, is_one_line, run, run_here, running

EXAMPLES = Path(__file__).parents[1] / "examples"
URLS = ["pipe://talk", "shm://talk", "tcp://127.0.0.1:0"]
BINARY = bytes(range(256)) * 1000 + b"\n\r\n\0"

every_transport = pytest.mark.parametrize("url", URLS)


# --- the command itself ---------------------------------------------------------------------------


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"proclink {proclink.__version__}\n".encode(),
        b"",
    )


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    for name in (b"bench", b"echo", b"send", b"recv"):
        assert name in done.stdout


def test_no_command_is_bad_usage() -> None:
    assert run().returncode == 2


def test_entry_point() -> None:
    script = Path(sys.executable).with_name("proclink")
    if not script.exists():
        pytest.skip("the scripts of this environment are somewhere else")
    done = subprocess.run([script, "--version"], capture_output=True, timeout=PATIENCE, check=True)
    assert done.stdout.startswith(b"proclink ")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra(missing: str) -> None:
    program = (
        "import runpy, sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "sys.argv = ['proclink', '--version']\n"
        "runpy.run_module('proclink', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b'pip install "proclink[cli]"' in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["shout", "pipe://talk"],
        ["echo"],
        ["echo", "memory://talk"],
        ["send", "memory://talk"],
        ["recv", "memory://talk"],
        ["recv", "pipe://talk", "--timeout", "-1"],
        ["recv", "pipe://talk", "--timeout", "nan"],
        ["send", "pipe://talk", "--timeout", "inf"],
        ["send", "pipe://talk", "--timeout", "soon"],
        ["recv", "pipe://talk", "--count", "-1"],
        ["recv", "pipe://talk", "--loud"],
    ],
)
def test_bad_usage(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    done = run_here(monkeypatch, capfdbinary, *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["echo", "send", "recv"])
@pytest.mark.parametrize("url", ["carrier://pigeon", "pipe://", "tcp://127.0.0.1", "talk"])
def test_an_address_that_makes_no_sense(
    name: str,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    done = run_here(monkeypatch, capfdbinary, name, url)
    assert (done.returncode, done.stdout) == (1, b"")
    assert is_one_line(done.stderr)


@pytest.mark.parametrize("name", ["send", "recv"])
@pytest.mark.parametrize("timeout", ["0", "0.05"])
def test_no_server(name: str, timeout: str) -> None:
    done = run(name, "pipe://nobody", "--timeout", timeout)
    assert (done.returncode, done.stdout) == (1, b"")
    assert is_one_line(done.stderr)
    assert b"no server" in done.stderr


def test_an_address_in_use() -> None:
    with proclink.bind("pipe://talk"):
        done = run("echo", "pipe://talk")
    assert done.returncode == 1
    assert is_one_line(done.stderr)
    assert b"in use" in done.stderr


def test_a_port_that_cannot_be_had() -> None:
    # An address for documentation (RFC 5737), so no machine's own: an error of the system.
    done = run("echo", "tcp://192.0.2.1:5000")
    assert done.returncode == 1
    assert is_one_line(done.stderr)


# --- echo -----------------------------------------------------------------------------------------


@every_transport
def test_echo(url: str) -> None:
    with running("echo", url) as server:
        address = server.address()
        for _ in range(2):  # one client after the other
            with proclink.connect(address, timeout=PATIENCE) as link:
                for message in (b"ping", b"", BINARY):
                    link.send(message, timeout=PATIENCE)
                    assert link.recv(timeout=PATIENCE) == message
        with (
            proclink.connect(address, timeout=PATIENCE),
            pytest.raises(proclink.Busy),
        ):
            proclink.connect(address, timeout=PATIENCE)
        server.interrupt()
        assert server.ending() == (130, b"", b"")


@every_transport
def test_echo_to_many(url: str) -> None:
    with running("echo", "--listen", url) as server:
        address = server.address()
        with contextlib.ExitStack() as open_links:
            links = [
                open_links.enter_context(proclink.connect(address, timeout=PATIENCE))
                for _ in range(3)
            ]
            for turn in range(2):
                for number, link in enumerate(links):
                    link.send(b"%d of %d" % (turn, number))
                for number, link in enumerate(links):
                    assert link.recv(timeout=PATIENCE) == b"%d of %d" % (turn, number)
            links.pop().close()
            server.interrupt()
            for link in links:
                with pytest.raises(proclink.Disconnected):
                    link.recv(timeout=PATIENCE)
            assert server.ending() == (130, b"", b"")


def test_echo_survives_a_client_that_vanishes() -> None:
    with running("echo", "--listen", "pipe://talk") as server:
        address = server.address()
        with running("recv", address, "--count", "1") as client:
            with proclink.connect(address, timeout=PATIENCE) as link:
                link.send(b"ping")
                assert link.recv(timeout=PATIENCE) == b"ping"
            client.process.kill()
            client.process.wait(PATIENCE)
        with proclink.connect(address, timeout=PATIENCE) as link:
            link.send(b"ping")
            assert link.recv(timeout=PATIENCE) == b"ping"
        server.interrupt()
        assert server.ending()[0] == 130


# --- send and recv --------------------------------------------------------------------------------


@every_transport
def test_lines_to_a_bound_receiver(url: str) -> None:
    with running("recv", url, "--bind", "--count", "4") as receiver:
        done = run("send", receiver.address(), given=b"one\n\nthree\r\nlast")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert receiver.ending() == (0, b"one\n\nthree\r\nlast\n", b"")


@every_transport
def test_lines_from_a_bound_sender(url: str) -> None:
    with running("send", url, "--bind") as sender:
        address = sender.address()
        with running("recv", address) as receiver:
            sender.say(b"one\ntwo\n")
            assert receiver.output.readline() == b"one\n"  # while the input is still open
            sender.input.close()
            assert receiver.ending() == (0, b"two\n", b"")
        assert sender.process.wait(PATIENCE) == 0


@every_transport
def test_raw_messages(url: str) -> None:
    with running("recv", url, "--bind", "--raw", "--count", "2", "--timeout", "30") as receiver:
        address = receiver.address()
        assert run("send", address, "--raw", "--timeout", "30", given=BINARY).returncode == 0
        assert run("send", address, "--raw", "--timeout", "30", given=b"tail").returncode == 0
        assert receiver.ending() == (0, BINARY + b"tail", b"")


def test_empty_raw_input_is_one_empty_message() -> None:
    with proclink.bind("pipe://talk") as link:
        assert run("send", "pipe://talk", "--raw").returncode == 0
        assert link.recv(timeout=PATIENCE) == b""


def test_empty_input_is_no_message() -> None:
    with proclink.bind("pipe://talk") as link:
        assert run("send", "pipe://talk").returncode == 0
        assert run("send", "pipe://talk", "--raw", given=b"next").returncode == 0
        assert link.recv(timeout=PATIENCE) == b"next"


def test_send_counts() -> None:
    with proclink.bind("pipe://talk") as link:
        assert run("send", "pipe://talk", "--count", "2", given=b"1\n2\n3\n").returncode == 0
        assert run("send", "pipe://talk", "--count", "0", given=b"1\n").returncode == 0
        assert run("send", "pipe://talk", "--raw", given=b"next").returncode == 0
        assert [link.recv(timeout=PATIENCE) for _ in range(3)] == [b"1", b"2", b"next"]


def test_a_peer_that_closes_too_early() -> None:
    with running("send", "pipe://talk", "--bind") as sender:
        address = sender.address()
        with running("recv", address, "--count", "2") as receiver:
            sender.say(b"only one\n")
            assert receiver.output.readline() == b"only one\n"
            sender.input.close()
            status, output, errors = receiver.ending()
    assert (status, output) == (1, b"")
    assert is_one_line(errors)


def test_a_peer_that_vanishes() -> None:
    with running("send", "pipe://talk", "--bind") as sender:
        address = sender.address()
        with running("recv", address) as receiver:
            sender.say(b"last words\n")
            assert receiver.output.readline() == b"last words\n"
            sender.process.kill()
            status, output, errors = receiver.ending()
    assert (status, output) == (1, b"")
    assert is_one_line(errors)
    assert b"vanished" in errors


@pytest.mark.parametrize("name", ["send", "recv"])
def test_nobody_comes_in_time(name: str) -> None:
    with running(name, "pipe://talk", "--bind", "--timeout", "0.05") as waiting:
        waiting.address()
        waiting.say(b"hello\n")
        status, output, errors = waiting.ending()
    assert (status, output) == (1, b"")
    assert is_one_line(errors)
    assert b"in time" in errors


def test_a_reader_that_had_enough() -> None:
    with running("recv", "pipe://talk", "--bind") as receiver:
        with proclink.connect(receiver.address(), timeout=PATIENCE) as link:
            link.send(b"first")
            assert receiver.output.readline() == b"first\n"
            receiver.output.close()
            link.send(b"second")
            assert receiver.process.wait(PATIENCE) == 0
        assert receiver.errors.read() == b""


def test_interrupted_recv() -> None:
    with proclink.bind("pipe://talk") as link, running("recv", "pipe://talk") as receiver:
        link.send(b"hello", timeout=PATIENCE)
        assert receiver.output.readline() == b"hello\n"
        receiver.interrupt()
        assert receiver.ending() == (130, b"", b"")


def test_interrupted_send() -> None:
    with proclink.bind("pipe://talk") as link, running("send", "pipe://talk") as sender:
        sender.say(b"hello\n")
        assert link.recv(timeout=PATIENCE) == b"hello"
        sender.interrupt()
        assert sender.ending() == (130, b"", b"")


# --- examples -------------------------------------------------------------------------------------


def test_quickstart() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "quickstart.py"],
        capture_output=True,
        timeout=PATIENCE,
        check=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    assert done.stderr == b""
    for scheme in (b"pipe", b"shm", b"tcp", b"memory"):
        assert scheme + b"://" in done.stdout
    assert done.stdout.count(b" -> you said: ") == 12


@every_transport
def test_echo_examples(url: str) -> None:
    server = [sys.executable, str(EXAMPLES / "echo_server.py")]
    client = [sys.executable, str(EXAMPLES / "echo_client.py")]
    with running(url, command=server) as serving:
        address = serving.output.readline().decode().split()[-1]
        done = subprocess.run(
            [*client, address],
            input=b"one\ntwo\n",
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
    assert done.stdout == b"one\ntwo\n"
