"""The tables of ``proclink bench``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import rich.box
import rich.console
import rich.table

from proclink.bench import Machine, Placement, Row

_TITLES = {
    "pingpong": "ping-pong: µs for a round trip",
    "stream": "stream: one way, one send a message, until all are confirmed",
    "stream_many": "stream_many: one way, send_many and recv_many, until all are confirmed",
}
_PLACES = {
    "own": "own cores: client on cpu {0.client}, server on cpu {0.server}",
    "shared": "one shared core: both on cpu {0.client}",
    "unpinned": "unpinned: wherever the system puts them",
}

_Number = tuple[str, Callable[[Row], str]]

_LATENCY: tuple[_Number, ...] = (
    ("median", lambda row: f"{row.p50_us:,.2f}"),
    ("p99", lambda row: f"{row.p99_us:,.2f}"),
    ("p99.9", lambda row: f"{row.p999_us:,.2f}"),
    ("min", lambda row: f"{row.min_us:,.2f}"),
)
_THROUGHPUT: tuple[_Number, ...] = (
    ("messages/s", lambda row: f"{row.msgs_per_s:,.0f}"),
    ("MB/s", lambda row: f"{row.mb_per_s:,.1f}"),
)


def render(
    console: rich.console.Console,
    machine: Machine,
    placements: Sequence[Placement],
    rows: Sequence[Row],
) -> None:
    """Prints the machine, and a table for each mode and placement."""
    console.print(
        f"{machine.cpu}, {machine.cores} cpus, {machine.kernel}, {machine.python}, "
        f"proclink {machine.proclink}, spin {rows[0].spin} "
        f"(up to {machine.spin_budget_us:.0f} µs)",
        soft_wrap=True,
        markup=False,
    )
    for mode in dict.fromkeys(row.mode for row in rows):
        for placement in placements:
            chosen = [row for row in rows if (row.mode, row.placement) == (mode, placement.name)]
            console.print()
            console.print(_TITLES[mode], style="bold", soft_wrap=True)
            console.print(_PLACES[placement.name].format(placement), soft_wrap=True)
            console.print(_table(chosen, _LATENCY if mode == "pingpong" else _THROUGHPUT))


def _table(rows: Sequence[Row], numbers: Sequence[_Number]) -> rich.table.Table:
    transports = list(dict.fromkeys(row.transport for row in rows))
    cells = {(row.size, row.transport): row for row in rows}
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_lines=len(numbers) > 1, pad_edge=False)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for transport in transports:
        table.add_column(transport, justify="right", no_wrap=True)
    for size in dict.fromkeys(row.size for row in rows):
        table.add_row(
            f"{size:,} B",
            "\n".join(name for name, _ in numbers),
            *(
                "\n".join(text(cells[size, transport]) for _, text in numbers)
                for transport in transports
            ),
        )
    return table
