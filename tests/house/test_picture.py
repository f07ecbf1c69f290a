"""Pictures: a place where none can be written is refused before the work, and an older one stays when drawing fails."""

import subprocess
import sys

import pytest

from tests.command_line import clean_environment
from voxrill.runtime.errors import UsageError
from voxrill.runtime.picture import PICTURES, check_picture, save_picture


class Figure:
    """Stands for matplotlib's."""

    def __init__(self, fails=False):
        self._fails = fails

    def savefig(self, path, dpi, format, metadata):
        assert metadata
        path.write_bytes(format.encode())
        if self._fails:
            raise RuntimeError("it cannot be drawn")


@pytest.mark.parametrize("suffix", [*PICTURES, ".PNG"])
def test_the_name_says_the_format(tmp_path, suffix):
    save_picture(Figure(), tmp_path / f"a{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == suffix[1:].lower().encode()


@pytest.mark.parametrize(("name", "saying"), [("a.bmp", "a.bmp is not the name of a picture"), ("no/a.png", "no")])
def test_a_place_for_no_picture(tmp_path, name, saying):
    with pytest.raises(UsageError, match=saying):
        check_picture(tmp_path / name)


def test_the_older_picture_survives(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"older")
    with pytest.raises(RuntimeError):
        save_picture(Figure(fails=True), path)
    assert path.read_bytes() == b"older" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="the cache lies elsewhere")
def test_what_matplotlib_keeps_lies_in_our_cache(tmp_path):
    pytest.importorskip("matplotlib")
    code = "from voxrill.runtime.picture import figure_class, save_picture; from pathlib import Path; " \
        "save_picture(figure_class('demo')(), Path('a.png'))"  # fmt: skip
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in clean_environment().items() if not name.startswith(("XDG_", "MPL"))}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=kept | {"HOME": str(home)}, check=True, timeout=300)
    found = {path.relative_to(home).parts[:3] for path in home.rglob("*") if path.is_file()}
    assert found == {(".cache", "voxrill", "matplotlib")}
