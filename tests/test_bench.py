"""The benchmark: its loops, its processes, and the command."""

from __future__ import annotations

import array
import contextlib
import dataclasses
import json
import os
import pty
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import proclink
from command_line import COMMAND, PATIENCE, is_one_line, run, run_here
from proclink import bench
from proclink.bench import _measure, _modes, _pair, _placement, _rows

FIELDS: dict[str, type | tuple[type, ...]] = {
    "transport": str,
    "size": int,
    "mode": str,
    "placement": str,
    "spin": (str, int, float),
    "n": int,
    "p50_us": float,
    "p99_us": float,
    "p999_us": float,
    "min_us": float,
    "msgs_per_s": float,
    "mb_per_s": float,
}
MACHINE = {"cpu", "cores", "kernel", "python", "proclink", "spin_budget_us", "date", "placements"}
SHORT = ("--seconds", "0.01", "--pin", "none")


def check_rows(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert list(row) == list(FIELDS)
        for name, kind in FIELDS.items():
            assert isinstance(row[name], kind), name
        assert row["n"] > 0
        assert 0 < row["min_us"] <= row["p50_us"] <= row["p99_us"] <= row["p999_us"]
        # A slow rate may be rounded to nothing; both are rounded from the same one.
        rounded = 0.0005 + 0.05 * row["size"] / 1e6
        assert row["mb_per_s"] == pytest.approx(
            row["msgs_per_s"] * row["size"] / 1e6, rel=1e-9, abs=rounded
        )


def bench_json(*options: str) -> dict[str, Any]:
    done = run("bench", "--json", "-", *options)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert set(document) == {"machine", "rows"}
    assert set(document["machine"]) == MACHINE
    check_rows(document["rows"])
    return document


# --- numbers --------------------------------------------------------------------------------------


def test_percentiles() -> None:
    values = [float(value) for value in range(1, 1001)]
    assert _rows.percentile(values, 0.5) == 500
    assert _rows.percentile(values, 0.99) == 990
    assert _rows.percentile(values, 0.999) == 999
    assert _rows.percentile([7.0], 0.5) == _rows.percentile([7.0], 0.999) == 7


def test_rounds_are_merged() -> None:
    rounds = [
        _rows.Samples(array.array("q", [2_000, 8_000]), 2),
        _rows.Samples(array.array("q", [10_000]), 1),
    ]
    row = _rows.row_of(
        rounds, transport="shm", size=100, mode="stream", placement="own", spin="auto"
    )
    assert (row.n, row.min_us, row.p50_us, row.p99_us) == (5, 1.0, 4.0, 10.0)
    assert (row.msgs_per_s, row.mb_per_s) == (250_000.0, 25.0)


@pytest.mark.parametrize("size", [0, 1, 16, 16384, 1 << 20, 1 << 24])
def test_batches_are_even_and_small(size: int) -> None:
    length = _modes.batch_length(size)
    assert length % 2 == 0
    assert length == 2 or length * size <= 1 << 20


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_payloads(size: int) -> None:
    first, second = _modes.payloads_of(size)
    assert len(first) == len(second) == size
    assert (first != second) == (size > 0)
    assert _modes.payloads_of(size) == (first, second)


def test_machine() -> None:
    machine = bench.describe_machine(0)
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.proclink == proclink.__version__
    assert machine.spin_budget_us == 0


# --- placements -----------------------------------------------------------------------------------


def test_cpu_lists() -> None:
    assert _placement.cpus_of_list("0-2,8\n") == {0, 1, 2, 8}
    assert _placement.cpus_of_list("3") == {3}


def test_automatic_placements(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_cpus(*cpus: int) -> list[bench.Placement]:
        monkeypatch.setattr(_placement, "usable_cpus", lambda: list(cpus))
        return bench.automatic_placements()

    monkeypatch.setattr(_placement, "threads_of_core", lambda cpu: {cpu, cpu ^ 1})
    shared = bench.Placement("shared", 2, 2)
    assert with_cpus(2, 3, 4) == [bench.Placement("own", 2, 4), shared]
    assert with_cpus(2, 3) == [bench.Placement("own", 2, 3), shared]
    assert with_cpus(2) == [shared]
    assert with_cpus() == [bench.UNPINNED]


def test_a_cpu_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="cpu 100000 cannot be used"):
        bench.pinned(min(os.sched_getaffinity(0)), 100_000)


# --- loops ----------------------------------------------------------------------------------------


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("mode", bench.MODES)
@pytest.mark.parametrize("size", [0, 1, 16, 100_000])
def test_loops(mode: bench.Mode, size: int) -> None:
    with proclink.bind("memory://loops") as server, proclink.connect("memory://loops") as client:
        serving = in_background(lambda: _modes.run_server(server, mode, size))
        samples = _modes.run_client(client, mode, size, 0.01)
        serving.join(PATIENCE)
        assert not serving.is_alive()
        assert len(samples.times) > 0
        assert min(samples.times) > 0
        with pytest.raises(proclink.TimedOut):
            server.recv(timeout=0)
        with pytest.raises(proclink.TimedOut):
            client.recv(timeout=0)


def test_an_echo_of_the_message_before_is_seen() -> None:
    def echo_late(server: proclink.Link) -> None:
        before = server.recv()
        server.send(before)
        server.recv()
        server.send(before)

    with proclink.bind("memory://loops") as server, proclink.connect("memory://loops") as client:
        serving = in_background(lambda: echo_late(server))
        with pytest.raises(_modes.WrongMessage):
            _modes.run_client(client, "pingpong", 16, 10.0)
        serving.join(PATIENCE)


# --- measuring ------------------------------------------------------------------------------------


def test_measure() -> None:
    seen: list[bench.Progress] = []
    sizes = [0, 16, 1 << 20]
    rows = bench.measure(
        bench.TRANSPORTS,
        sizes,
        modes=bench.MODES,
        placements=[bench.UNPINNED],
        spin=0,
        seconds=0.01,
        progress=seen.append,
    )
    check_rows([dataclasses.asdict(row) for row in rows])
    assert [(row.mode, row.size, row.transport) for row in rows] == [
        (mode, size, transport)
        for mode in bench.MODES
        for size in sizes
        for transport in bench.TRANSPORTS
    ]
    assert {row.spin for row in rows} == {0}
    assert [progress.done for progress in seen] == list(range(len(rows) + 1))
    assert {progress.total for progress in seen} == {len(rows)}
    assert seen[-1].now == ""


def test_rounds_interleave_the_transports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_measure, "_SHORTEST_ROUND", 0.01)
    seen: list[bench.Progress] = []
    bench.measure(
        ["pipe", "shm"],
        [16],
        placements=[bench.UNPINNED],
        seconds=0.02,
        progress=seen.append,
    )
    order = [progress.now.split()[0] for progress in seen[:-1]]
    assert order == ["pipe", "shm", "shm", "pipe"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"transports": ["memory"]}, "inside one process"),
        ({"transports": ["pigeon"]}, "no transport 'pigeon'"),
        ({"sizes": [-1]}, "size"),
        ({"sizes": [1 << 40]}, "size"),
        ({"modes": ["shout"]}, "no mode 'shout'"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"spin": -1}, "spin"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench.measure(**arguments)


def start_pair(**settings: Any) -> _pair.Pair:
    return _pair.Pair("pipe", bench.UNPINNED, "auto", 16, **settings)


@pytest.mark.parametrize("role", [0, 1], ids=["server", "client"])
def test_a_process_that_dies(role: int) -> None:
    with start_pair() as pair:
        pair._workers[role]._process.kill()
        with pytest.raises(bench.MeasurementFailed, match=r"exit status -9|PeerLost"):
            pair.measure("pingpong", 16, 0.01)


def test_a_process_that_does_not_answer() -> None:
    with pytest.raises(bench.MeasurementFailed, match="did not answer in time"):
        start_pair(patience=0.001).__enter__()


def test_an_address_that_cannot_be_had(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pair, "_free_url", lambda _: f"pipe://{place}/missing/link")
    with pytest.raises(bench.MeasurementFailed, match="the server failed: AddressError"):
        start_pair().__enter__()


# --- the command ----------------------------------------------------------------------------------


def test_tables() -> None:
    done = run("bench", "--sizes", "16,1048576", "--mode", "both", *SHORT)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    for name in ("pipe", "shm", "tcp", "16 B", "1,048,576 B", "median", "p99", "p99.9", "min"):
        assert name in text
    assert text.count("unpinned") == 3
    assert text.count("messages/s") == 4
    assert proclink.__version__ in text


def test_json_has_every_combination() -> None:
    document = bench_json("--sizes", "16,256", "--transports", "shm,pipe", *SHORT)
    found = [(row["size"], row["transport"], row["mode"]) for row in document["rows"]]
    assert found == [(size, name, "pingpong") for size in (16, 256) for name in ("shm", "pipe")]
    assert {row["placement"] for row in document["rows"]} == {"unpinned"}
    assert document["machine"]["placements"] == [
        {"name": "unpinned", "client": None, "server": None}
    ]


def test_steps_replace_sizes() -> None:
    document = bench_json("--step", "64:160:32", "--transports", "pipe", *SHORT)
    assert [row["size"] for row in document["rows"]] == [64, 96, 128, 160]


def test_streams() -> None:
    document = bench_json("--mode", "stream", "--sizes", "64", "--transports", "pipe", *SHORT)
    assert [row["mode"] for row in document["rows"]] == ["stream", "stream_many"]


@pytest.mark.parametrize(("text", "spin"), [("auto", "auto"), ("0", 0), ("5", 5), ("2.5", 2.5)])
def test_spin(text: str, spin: object) -> None:
    document = bench_json("--spin", text, "--sizes", "16", "--transports", "pipe", *SHORT)
    assert [row["spin"] for row in document["rows"]] == [spin]


def test_automatic_pinning_measures_every_placement() -> None:
    options = ("--sizes", "16", "--transports", "pipe", "--seconds", "0.01")
    names = [placement.name for placement in bench.automatic_placements()]
    document = bench_json(*options, "--pin", "auto")
    assert [row["placement"] for row in document["rows"]] == names
    text = run("bench", *options).stdout.decode()
    assert text.count("median") == len(names)


def test_pinning_to_given_cpus() -> None:
    cpu = min(os.sched_getaffinity(0))
    options = ("--sizes", "16", "--transports", "pipe", "--seconds", "0.01")
    document = bench_json(*options, "--pin", f"{cpu},{cpu}")
    assert [row["placement"] for row in document["rows"]] == ["shared"]
    assert document["machine"]["placements"] == [{"name": "shared", "client": cpu, "server": cpu}]


def test_json_file(place: Path) -> None:
    file = place / "rows.json"
    file.write_text("old " * 1000)
    done = run("bench", "--json", str(file), "--sizes", "16", "--transports", "pipe", *SHORT)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"median" in done.stdout
    check_rows(json.loads(file.read_text())["rows"])


def test_a_json_file_that_cannot_be_written(place: Path) -> None:
    done = run("bench", "--json", str(place / "missing" / "rows.json"))
    assert (done.returncode, done.stdout) == (1, b"")
    assert is_one_line(done.stderr)


@pytest.mark.parametrize(
    "options",
    [
        ["--transports", "pigeon"],
        ["--transports", "memory"],
        ["--sizes", "16,many"],
        ["--sizes", "-1"],
        ["--sizes", "99999999999999"],
        ["--step", "64:1024"],
        ["--step", "64:16:8"],
        ["--step", "64:1024:0"],
        ["--step", "1:1000000:1"],
        ["--mode", "shout"],
        ["--spin", "fast"],
        ["--spin", "nan"],
        ["--pin", "somewhere"],
        ["--pin", "0"],
        ["--pin", "0,100000"],
        ["--seconds", "0"],
    ],
)
def test_bad_usage(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    done = run_here(monkeypatch, capfdbinary, "bench", *options)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Traceback" not in done.stderr


def read_all(terminal: int) -> bytes:
    text = b""
    with contextlib.suppress(OSError):  # EIO: the last process at the other end is gone
        while part := os.read(terminal, 4096):
            text += part
    return text


def test_progress_and_interrupt_on_a_terminal() -> None:
    terminal, other_end = pty.openpty()
    try:
        with subprocess.Popen(
            [*COMMAND, "bench", "--transports", "shm", "--sizes", "16", "--seconds", "60"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=other_end,
            env=os.environ | {"TERM": "xterm"},
        ) as command:
            os.close(other_end)
            try:
                text = b""
                while b"shm pingpong 16 B" not in text:
                    text += os.read(terminal, 4096)
                children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
                workers = children.read_text().split()
                assert len(workers) == 2
                command.send_signal(signal.SIGINT)
                text += read_all(terminal)
                assert command.wait(PATIENCE) == 130
            finally:
                command.kill()
            assert command.stdout is not None
            assert command.stdout.read() == b""
    finally:
        os.close(terminal)
    assert b"Traceback" not in text
    assert not any(Path("/proc", worker).exists() for worker in workers)
