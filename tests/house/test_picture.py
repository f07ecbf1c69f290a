"""Pictures: a place where none can be written is refused before the work, and an older one stays when drawing fails."""

import pytest

from voxrill.runtime.errors import UsageError
from voxrill.runtime.picture import PICTURES, check_picture, save_picture


class Figure:
    """Stands for matplotlib's."""

    def __init__(self, fails=False):
        self._fails = fails

    def savefig(self, path, dpi, format):
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
