"""Every instruction set of this processor, one after the other."""

from __future__ import annotations

import pytest

from voxrill.devices import kernels


@pytest.fixture
def each_set(library):
    """Every instruction set of this processor, chosen one after the other; the best one afterwards."""

    def sets():
        for name in library.sets:
            kernels.choose(name)
            yield name

    yield sets
    kernels.choose(library.chosen)
