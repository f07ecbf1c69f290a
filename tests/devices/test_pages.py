"""Huge pages: memory that is mapped in between comes to lie on them, other memory stays as it is, and nothing fails."""

import mmap
import os
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

import voxrill
from tests.places import PEBBLE
from voxrill.devices import pages
from voxrill.devices.pages import HugePages, PageSetting, huge_memory, page_setting, share_moved

MEGABYTES = 1 << 20
SIZE = 64 * MEGABYTES
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked for huge pages")


def given_to_numpy():
    """The share of an array that numpy itself gets on huge pages."""
    before = huge_memory() or 0
    array = np.ones(SIZE, np.uint8)
    return ((huge_memory() or 0) - before) / array.nbytes


@pytest.fixture
def kernel():
    """A kernel that moves written memory to huge pages (Linux 6.1), and has some."""
    if sys.platform != "linux" or tuple(map(int, os.uname().release.split(".")[:2])) < (6, 1):
        pytest.skip("memory that is written already is moved from Linux 6.1 on")
    if given_to_numpy() < 0.9:
        pytest.skip("this kernel has no huge pages, or none left")


@contextmanager
def written(size=SIZE, used=SIZE):
    """Private memory of which `used` bytes were written."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        pytest.skip("this system makes private memory in another way")
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(b"\1" * used)
        yield memory


def moved(huge_pages):
    """Bytes that came to lie on huge pages."""
    before = huge_memory() or 0
    huge_pages.begin()
    huge_pages.wait()
    return (huge_memory() or 0) - before


def test_most_of_what_is_mapped_later_is_moved_and_keeps_its_content(kernel):
    huge_pages = HugePages(SIZE)
    with written() as memory:
        assert moved(huge_pages) >= 0.5 * SIZE
        assert memory[:] == b"\1" * SIZE


def test_memory_from_before_stays_as_it_is(kernel):
    with written():
        assert moved(HugePages(SIZE)) < 0.1 * SIZE


def test_what_is_not_in_use_takes_no_memory(kernel):
    huge_pages = HugePages(SIZE)
    with written(2 * SIZE, used=SIZE):
        assert 0.5 * SIZE <= moved(huge_pages) <= 1.1 * SIZE


def test_a_test_of_its_own_says_what_a_machine_allows(kernel, monkeypatch):
    assert share_moved() >= 0.5
    monkeypatch.setenv(pages.OFF_VARIABLE, "1")
    assert share_moved() < 0.1


@pytest.mark.parametrize(
    ("expected", "environment", "setting"),
    [
        (pages.WORTH - 1, {}, PageSetting(4096, 2 * MEGABYTES, "always")),
        (pages.WORTH, {pages.OFF_VARIABLE: "1"}, PageSetting(4096, 2 * MEGABYTES, "always")),
        (pages.WORTH, {}, PageSetting(4096, 2 * MEGABYTES, "never")),
        (pages.WORTH, {}, None),
    ],
    ids=["a small model", "switched off", "never", "another system"],
)
def test_nothing_happens_where_it_is_not_wanted(monkeypatch, expected, environment, setting):
    monkeypatch.setattr(pages, "page_setting", lambda: setting)
    monkeypatch.setattr(pages, "_advise", lambda *_: pytest.fail("the kernel was asked"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    huge_pages = HugePages(expected)
    with written():
        huge_pages.begin()
        huge_pages.wait()
        huge_pages.stop()


class Refusing:
    """A kernel that forbids both calls, as some containers do."""

    asked = 0

    def madvise(self, *_):
        self.asked += 1
        return -1

    mincore = madvise


@LINUX
def test_a_kernel_that_refuses_is_no_failure(monkeypatch, capfd):
    kernel = Refusing()
    monkeypatch.setattr(pages, "page_setting", lambda: PageSetting(4096, 2 * MEGABYTES, "madvise"))
    monkeypatch.setattr(pages, "_libc", lambda: kernel)
    huge_pages = HugePages(SIZE)
    with written():
        assert moved(huge_pages) == 0
    assert kernel.asked > 0 and capfd.readouterr() == ("", "")


@LINUX
def test_without_the_calls_it_is_no_failure_either(monkeypatch, capfd):
    monkeypatch.setattr(pages, "page_setting", lambda: PageSetting(4096, 2 * MEGABYTES, "madvise"))
    monkeypatch.setattr(pages, "_libc", object)
    huge_pages = HugePages(SIZE)
    with written():
        assert moved(huge_pages) == 0
    assert capfd.readouterr() == ("", "")


@LINUX
def test_little_memory_is_left_alone(monkeypatch):
    monkeypatch.setattr(pages, "available_memory", lambda: pages.SPARE - 1)
    monkeypatch.setattr(pages, "_collapse", lambda *_: pytest.fail("it would take what others need"))
    huge_pages = HugePages(SIZE)
    with written():
        huge_pages.begin()
        huge_pages.wait()


@pytest.mark.parametrize(
    ("enabled", "who"),
    [
        ("always [madvise] never\n", "madvise"),
        ("[always] madvise never\n", "always"),
        ("always madvise [never]", "never"),
    ],
)
def test_the_kernel_s_setting_is_read(tmp_path, enabled, who):
    (tmp_path / "enabled").write_text(enabled)
    (tmp_path / "hpage_pmd_size").write_text("33554432\n")  # with pages of 16 kB
    assert page_setting(tmp_path) == PageSetting(mmap.PAGESIZE, 32 * MEGABYTES, who)
    (tmp_path / "enabled").unlink()
    assert page_setting(tmp_path) is None


def test_huge_pages_larger_than_any_mapping_move_nothing(monkeypatch):
    monkeypatch.setattr(pages, "page_setting", lambda: PageSetting(65536, 512 * MEGABYTES, "madvise"))
    monkeypatch.setattr(pages, "_advise", lambda start, end, _: pytest.fail(f"asked for {start:x}-{end:x}"))
    huge_pages = HugePages(SIZE)
    with written():
        huge_pages.begin()
        huge_pages.wait()


def test_pebble_is_too_small_to_gain(monkeypatch):
    monkeypatch.setattr(pages, "page_setting", lambda: pytest.fail("its load would be slower"))
    voxrill.load(PEBBLE).close()


def test_a_model_says_the_same_on_huge_pages_and_closes_while_it_is_moved(monkeypatch):
    monkeypatch.setattr(pages, "WORTH", 0)
    with voxrill.load(PEBBLE) as model:
        model.huge_pages.wait()
        moved_text = model.speak("Hello.", max_new_tokens=8).samples
    monkeypatch.setenv(pages.OFF_VARIABLE, "1")
    with voxrill.load(PEBBLE) as model:
        assert np.array_equal(model.speak("Hello.", max_new_tokens=8).samples, moved_text)
    monkeypatch.delenv(pages.OFF_VARIABLE)
    voxrill.load(PEBBLE).close()
    assert not [thread for thread in threading.enumerate() if thread.name == "voxrill-pages"]
