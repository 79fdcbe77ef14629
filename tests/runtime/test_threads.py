"""CPUs that a process may use: its affinity, its containers' quotas, what the user says."""

import os
from pathlib import Path

import pytest

from stages.runtime.threads import available_cpus, threads

MANY = set(range(96))


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a machine of 96 CPUs."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: MANY, raising=False)


def groups(root: Path, of_process: str, files: dict[str, str]) -> Path:
    """A file system with these control groups."""
    for name, text in ({"proc/self/cgroup": of_process} | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("of_process", "files", "n"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 96),
        ("0::/\n", {}, 96),
        (
            "0::/pods/one\n",
            {"sys/fs/cgroup/pods/one/cpu.max": "max 100000\n", "sys/fs/cgroup/pods/cpu.max": "300000 100000\n"},
            3,
        ),
        (
            "4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        ("3:cpu:/\n", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "1"}, 96),
    ],
    ids=[
        "v2",
        "v2, and a half",
        "v2, a twentieth",
        "v2 without limit",
        "none",
        "v2, outside",
        "v1",
        "v1 without limit",
    ],
)
def test_a_containers_share(tmp_path: Path, of_process: str, files: dict[str, str], n: int) -> None:
    assert available_cpus(groups(tmp_path, of_process, files)) == n


def test_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 7, 8})
    assert available_cpus(tmp_path) == 3


def test_what_the_user_says_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for said, n in (("3", 3), ("4,2", 4), ("", 96), ("0", 96), ("many", 96)):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert available_cpus(tmp_path) == n


def test_pools_have_as_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with threads() as pool:
        assert pool._max_workers == 3  # type: ignore[attr-defined]
