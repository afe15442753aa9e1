"""Tells at the end of a run where its time went."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

import pytest
from _pytest.terminal import TerminalReporter

SLOWEST = 10


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    tests: defaultdict[str, float] = defaultdict(float)
    folders: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                tests[report.nodeid] += report.duration
                folders[str(PurePosixPath(report.nodeid.partition("::")[0]).parent)] += (
                    report.duration
                )
    if not tests:
        return
    terminalreporter.section("where the time went")
    for name in sorted(tests, key=tests.__getitem__, reverse=True)[:SLOWEST]:
        terminalreporter.line(f"{tests[name]:7.2f} s  {name}")
    terminalreporter.line("by folder, summed over the workers:")
    for name in sorted(folders, key=folders.__getitem__, reverse=True):
        terminalreporter.line(f"{folders[name]:7.1f} s  {name}")
