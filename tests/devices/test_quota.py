"""Containers: a limit on processor time decides how many threads there are, in both versions of control groups."""

import pytest

from voxrill.devices import processor
from voxrill.devices.cgroups import cpu_quota
from voxrill.devices.providers import session_options


@pytest.fixture
def machine(tmp_path):
    """Control groups of a made-up machine: what /proc says, and files below /sys/fs/cgroup."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"

    def made(lines, **files):
        (proc / "self").mkdir(parents=True)
        (proc / "self" / "cgroup").write_text(lines, encoding="ascii")
        for name, content in files.items():
            path = cgroups / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="ascii")
        return cpu_quota(proc, cgroups)

    return made


@pytest.mark.parametrize(
    ("lines", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1.0),
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        (
            "3:memory:/a\n2:cpu,cpuacct:/a\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"},
            0.5,
        ),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "100000 0\n"}, None),
    ],
)
def test_the_limit_of_every_group_around_counts(machine, lines, files, quota):
    assert machine(lines, **files) == quota


@pytest.mark.parametrize(
    ("quota", "cores", "limit"), [(None, 8, 0), (16.0, 8, 0), (8.0, 8, 0), (4.0, 4, 4), (1.5, 1, 1), (0.5, 1, 1)]
)
def test_threads_follow_the_limit(monkeypatch, quota, cores, limit):
    monkeypatch.setattr(processor, "cpu_quota", lambda: quota)
    monkeypatch.setattr(processor, "_runnable_cores", lambda: 8)
    assert (processor.cores(), processor.thread_limit()) == (cores, limit)
    assert session_options().intra_op_num_threads == limit
    assert session_options(threads=3).intra_op_num_threads == 3
