"""``proclink bench``: the options, the progress and the JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Annotated, TextIO

import typer

from proclink import bench as benchmark
from proclink._options import Spin
from proclink.cli._endings import plain_ending, write

# rich is imported where it draws: every command imports this module as it starts.

_MOST_SIZES = 1000


class ModeChoice(StrEnum):
    """What ``--mode`` takes."""

    PINGPONG = "pingpong"
    STREAM = "stream"
    BOTH = "both"


_MODES: dict[ModeChoice, tuple[benchmark.Mode, ...]] = {
    ModeChoice.PINGPONG: ("pingpong",),
    ModeChoice.STREAM: ("stream", "stream_many"),
    ModeChoice.BOTH: benchmark.MODES,
}


def bench(
    transports: Annotated[
        str, typer.Option(metavar="NAMES", help="Of pipe, shm and tcp, with commas between.")
    ] = "pipe,shm,tcp",
    sizes: Annotated[
        str, typer.Option(metavar="BYTES", help="Message sizes, with commas between.")
    ] = "16,256,4096,16384",
    step: Annotated[
        str | None, typer.Option(metavar="FROM:TO:STEP", help="Evenly spaced sizes instead.")
    ] = None,
    mode: Annotated[
        ModeChoice, typer.Option(help="Round trips, one-way streams, or both.")
    ] = ModeChoice.PINGPONG,
    spin: Annotated[
        str,
        typer.Option(
            metavar="auto|0|US", help="How long a wait looks before it sleeps, in microseconds."
        ),
    ] = "auto",
    pin: Annotated[
        str,
        typer.Option(
            metavar="auto|none|A,B",
            help="auto: own cores, then one shared core; none: wherever the system puts them; "
            "A,B: the client on cpu A and the server on cpu B.",
        ),
    ] = "auto",
    seconds: Annotated[
        float, typer.Option(metavar="S", help="Measured time for each number shown.")
    ] = 1.0,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE|-",
            help="Write the numbers as JSON; with - to the standard output, and the tables to the "
            "standard error.",
        ),
    ] = None,
) -> None:
    """Measure the links between two processes of this machine."""
    chosen_transports = parse_names("--transports", transports, benchmark.TRANSPORTS)
    chosen_sizes = parse_sizes(sizes) if step is None else parse_step(step)
    chosen_spin = parse_spin(spin)
    placements = parse_pin(pin)
    if not 0 < seconds <= 3600:
        raise typer.BadParameter(f"--seconds: {seconds} is not above 0 and up to 3600")
    with plain_ending(), _json_target(json_file) as target:
        machine = benchmark.describe_machine(chosen_spin)
        with _progress() as progress:
            rows = benchmark.measure(
                chosen_transports,
                chosen_sizes,
                modes=_MODES[mode],
                placements=placements,
                spin=chosen_spin,
                seconds=seconds,
                progress=progress,
            )
        if target is not None:
            target(json_text(machine, placements, rows))
        _show(machine, placements, rows, apart=json_file == "-")


def _show(
    machine: benchmark.Machine,
    placements: list[benchmark.Placement],
    rows: list[benchmark.Row],
    *,
    apart: bool,
) -> None:
    import rich.console

    from proclink.cli._tables import render

    console = rich.console.Console(stderr=apart, highlight=False)
    with console.capture() as capture:
        render(console, machine, placements, rows)
    text = capture.get()
    if apart:
        print(text, end="", file=sys.stderr, flush=True)
    else:
        write(text.encode(console.encoding, "replace"))


def json_text(
    machine: benchmark.Machine,
    placements: list[benchmark.Placement],
    rows: list[benchmark.Row],
) -> str:
    """The JSON document."""
    about = dataclasses.asdict(machine)
    about["placements"] = [dataclasses.asdict(placement) for placement in placements]
    document = {"machine": about, "rows": [dataclasses.asdict(row) for row in rows]}
    return json.dumps(document, indent=1) + "\n"


@contextlib.contextmanager
def _json_target(name: str | None) -> Iterator[Callable[[str], None] | None]:
    """Where the JSON goes; what cannot be written is found out before minutes of measuring."""
    if name is None:
        yield None
    elif name == "-":
        yield lambda text: write(text.encode())
    else:
        # To append: what is there stays until there is something to replace it.
        with open(name, "a", encoding="utf-8") as file:
            yield lambda text: _replace_content(file, text)


def _replace_content(file: TextIO, text: str) -> None:
    if file.seekable():
        file.truncate(0)
    file.write(text)
    file.flush()


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[benchmark.Progress], None] | None]:
    """Shows how far it is, on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    import rich.console
    import rich.progress

    # Drawn between measurements only: a thread that draws would take a core from them.
    with rich.progress.Progress(
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn("{task.description}"),
        console=rich.console.Console(stderr=True),
        auto_refresh=False,
        transient=True,
    ) as bar:
        task = bar.add_task("starting")

        def show(now: benchmark.Progress) -> None:
            bar.update(task, completed=now.done, total=now.total, description=now.now)
            bar.refresh()

        yield show


# --- options --------------------------------------------------------------------------------------


def parse_names(option: str, text: str, known: tuple[str, ...]) -> list[str]:
    """Names with commas between, each once."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name == "memory":
            raise typer.BadParameter(
                f"{option}: memory:// lives inside one process, and this measures two"
            )
        if name not in known:
            raise typer.BadParameter(f"{option}: {name!r} is none of {', '.join(known)}")
    return names


def parse_sizes(text: str) -> list[int]:
    """Sizes with commas between, each once."""
    sizes = list(dict.fromkeys(_whole_number("--sizes", part) for part in text.split(",")))
    return _checked_sizes("--sizes", sizes)


def parse_step(text: str) -> list[int]:
    """The sizes of ``FROM:TO:STEP``, with TO among them where the steps meet it."""
    parts = text.split(":")
    if len(parts) != 3:
        raise typer.BadParameter(f"--step: {text!r} is not FROM:TO:STEP, such as 64:1024:64")
    first, last, step = (_whole_number("--step", part) for part in parts)
    if step == 0 or last < first:
        raise typer.BadParameter(f"--step: {text!r} has no sizes")
    return _checked_sizes("--step", range(first, last + 1, step))


def _whole_number(option: str, text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(f"{option}: {text!r} is not a number of bytes")
    return int(text)


def _checked_sizes(option: str, sizes: range | list[int]) -> list[int]:
    if len(sizes) > _MOST_SIZES:
        raise typer.BadParameter(f"{option}: that makes more than {_MOST_SIZES} sizes")
    if max(sizes) > benchmark.LARGEST_SIZE:
        raise typer.BadParameter(f"{option}: a size is at most {benchmark.LARGEST_SIZE} bytes")
    return list(sizes)


def parse_spin(text: str) -> Spin:
    """``auto`` or microseconds."""
    if text == "auto":
        return "auto"
    try:
        spin = float(text)
    except ValueError:
        spin = -1.0
    if not 0 <= spin <= 1_000_000:
        raise typer.BadParameter(f"--spin: {text!r} is neither auto nor 0 to 1000000 microseconds")
    return int(spin) if spin.is_integer() else spin


def parse_pin(text: str) -> list[benchmark.Placement]:
    """``auto``, ``none``, or two CPUs with a comma between."""
    if text == "auto":
        return benchmark.automatic_placements()
    if text == "none":
        return [benchmark.UNPINNED]
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise typer.BadParameter(f"--pin: {text!r} is neither auto, none nor two cpus such as 0,1")
    try:
        return [benchmark.pinned(int(parts[0]), int(parts[1]))]
    except ValueError as error:
        raise typer.BadParameter(f"--pin: {error}") from None
