"""How long a wait may look before it sleeps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from proclink import _spin
from proclink._spin import cpu_mask, own_quota, quota_cpus, spin_nanoseconds


def _files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/", {}, math.inf),
        ("0::/", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a/b", {"a/b/cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/a/b", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "400000 100000"}, 1.0),
        ("0::/a/b", {"cpu.max": "200000 100000", "a/b/cpu.max": "400000 100000"}, 2.0),
        ("0::/../../x", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/missing", {}, math.inf),
        (
            "4:cpu,cpuacct:/x",
            {"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        (
            "4:cpu,cpuacct:/x",
            {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"},
            math.inf,
        ),
        ("4:cpuset:/x", {"cpu/x/cpu.cfs_quota_us": "1", "cpu/x/cpu.cfs_period_us": "2"}, math.inf),
        ("4:cpu:/x", {}, math.inf),
        ("12:name=systemd:/a:b\n0::/c", {"c/cpu.max": "70000 100000"}, 0.7),
        ("0::/", {"cpu.max": ""}, math.inf),
        ("0::/", {"cpu.max": "much 100000"}, math.inf),
        ("0::/", {"cpu.max": "1 2 3"}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_the_quota_of_a_control_group(
    tmp_path: Path, membership: str, files: dict[str, str], cpus: float
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    _files(root, files)
    (tmp_path / "cgroup").write_text(membership)
    assert quota_cpus(tmp_path / "cgroup", root) == cpus


def test_without_control_groups(tmp_path: Path) -> None:
    assert quota_cpus(tmp_path / "missing", tmp_path) == math.inf


def test_there_is_a_cpu() -> None:
    assert cpu_mask() > 0
    assert own_quota() > 0


@pytest.mark.parametrize(
    ("cpus", "mask"), [({0}, 1), ({1, 3}, 0b1010), ({255}, 1 << 255), ({256, 1}, 0b11)]
)
def test_the_mask_of_the_cpus(monkeypatch: pytest.MonkeyPatch, cpus: set[int], mask: int) -> None:
    monkeypatch.setattr(_spin, "_cpus", lambda: cpus)
    assert cpu_mask() == mask


@pytest.mark.parametrize(
    ("own", "theirs", "quota", "spins"),
    [
        ({0}, 0b1, math.inf, False),  # both on the same one
        ({0}, 0b10, math.inf, True),
        ({0, 1}, 0b1, math.inf, True),
        ({0, 1}, 0b11, 2, True),
        ({0, 1}, 0b11, 1.5, False),
        ({0}, 0b10, 0.5, False),
    ],
)
def test_where_spinning_can_help(
    monkeypatch: pytest.MonkeyPatch, own: set[int], theirs: int, quota: float, spins: bool
) -> None:
    monkeypatch.setattr(_spin, "_cpus", lambda: own)
    monkeypatch.setattr(_spin, "own_quota", lambda: quota)
    assert spin_nanoseconds(0, theirs) == 0
    assert spin_nanoseconds(0.5, theirs) == (500 if spins else 0)
    assert spin_nanoseconds(100, theirs) == (100_000 if spins else 0)
    automatic = spin_nanoseconds("auto", theirs)
    assert (0 < automatic <= _spin.LONGEST_AUTOMATIC_SPIN) is spins
