"""What a measurement ran on."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
from pathlib import Path

import proclink
from proclink import _spin
from proclink._options import Spin


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """The machine and the programs of a measurement.

    Attributes:
        cpu: The processor's model.
        cores: How many CPUs the system has.
        kernel: The operating system and its version.
        python: The interpreter and its version.
        proclink: The version of proclink.
        spin_budget_us: How long a wait may spin, in microseconds, where the ends do not share
            their only CPU.
        date: When this was asked, ISO 8601, in UTC.
    """

    cpu: str
    cores: int
    kernel: str
    python: str
    proclink: str
    spin_budget_us: float
    date: str


def describe_machine(spin: Spin = "auto") -> Machine:
    """This machine, now.

    Args:
        spin: The setting whose budget is wanted.
    """
    return Machine(
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        proclink=proclink.__version__,
        spin_budget_us=_spin.spin_nanoseconds(spin, _spin.cpu_mask()) / 1e3,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
