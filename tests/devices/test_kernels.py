"""The library of products: what does not fit is refused before it is loaded, and what runs instead is said once."""

import json
import shutil
import subprocess
import sys
import warnings

import numpy as np
import onnxruntime as ort
import pytest

from tests.command_line import clean_environment
from tests.kernels.products import RandomProduct, activations
from voxrill.devices import kernels
from voxrill.runtime.errors import DeviceError, VoxrillWarning
from voxrill.runtime.upkeep import doctor

BUILT_IN = {"built_in_model_has": ["DynamicQuantizeMatMul 8"]}
"""What doctor says of the model that ships."""


@pytest.fixture
def native(tmp_path, monkeypatch):
    """A folder for the library, empty; nothing is remembered from before, nor afterwards."""
    monkeypatch.setattr(kernels, "NATIVE", tmp_path)
    monkeypatch.delenv(kernels.SWITCH, raising=False)
    kernels.own_products.cache_clear()
    yield tmp_path
    kernels.own_products.cache_clear()


def write_facts(folder, **changes):
    """A library that is no library, with facts that fit it."""
    (folder / "lib").write_bytes(b"not a library")
    facts = {"interface": kernels.INTERFACE, "version": kernels.VERSION, "platform": kernels.here(), "library": "lib"}
    facts |= {"sha256": kernels.hash_of(folder / "lib")}
    (folder / kernels.FACTS).write_text(json.dumps(facts | changes), encoding="utf-8")


def test_without_a_library_nothing_is_registered_and_nothing_is_warned_of(native):
    found = kernels.own_products()
    assert found.path is None and not found.fast and "no library" in found.reason
    assert not kernels.register(ort.SessionOptions())
    assert kernels.memory() == kernels.Memory(0, 0, 0, 0)
    assert doctor.products() == {"own": None, "because": found.reason, **BUILT_IN}


@pytest.mark.parametrize(
    "changes",
    [{"interface": 0}, {"version": "0.0.1"}, {"platform": "linux-riscv64"}, {"sha256": "0"}, {"library": "absent"}, {}],
    ids=["interface", "version", "platform", "hash", "absent", "no library"],
)
def test_what_does_not_fit_is_refused_and_said_once(native, changes, monkeypatch):
    if changes:  # then nothing may be loaded
        monkeypatch.setattr(kernels.ctypes, "CDLL", lambda path: pytest.fail("it was loaded"))
    write_facts(native, **changes)
    with pytest.warns(VoxrillWarning, match="onnxruntime's products run instead") as said:
        assert not kernels.register(ort.SessionOptions())
        assert not kernels.register(ort.SessionOptions())
    assert len(said) == 1
    assert next(iter(changes), "cannot be loaded") in str(said[0].message) or "absent" in str(said[0].message)


def test_facts_that_are_no_facts_are_refused(native):
    for text in ("", "[]", '{"library": 1}'):
        (native / kernels.FACTS).write_text(text, encoding="utf-8")
        kernels.own_products.cache_clear()
        with pytest.warns(VoxrillWarning, match="cannot be read"):
            assert kernels.own_products().path is None


def test_it_can_be_switched_off(native, monkeypatch):
    write_facts(native)
    monkeypatch.setenv(kernels.SWITCH, "off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.own_products().reason == "switched off by VOXRILL_KERNELS=off"


def test_an_instruction_set_that_cannot_be_used_is_refused(native, monkeypatch):
    monkeypatch.setenv(kernels.SWITCH, "avx2")
    with pytest.raises(DeviceError, match="no library of products"):
        kernels.own_products()


def run(script, **environment):
    return subprocess.run(
        [sys.executable, "-c", script],
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_environment_chooses_the_instruction_set(library):
    script = "from voxrill.devices.kernels import own_products; print(own_products().chosen)"
    for name in library.sets:
        assert run(script, VOXRILL_KERNELS=name).stdout.strip() == name
    done = run(script, VOXRILL_KERNELS="sse9")
    assert f"VOXRILL_KERNELS=sse9 does not run here. Set it to off or one of: {', '.join(library.sets)}" in done.stderr


def test_a_library_that_was_changed_is_not_loaded(library, native):
    for path in library.path.parent.iterdir():
        shutil.copy(path, native)
    assert kernels.own_products().path == native / library.path.name
    kernels.own_products.cache_clear()
    with (native / library.path.name).open("ab") as file:
        file.write(b"\0")
    with pytest.warns(VoxrillWarning, match="its sha256 is"):
        assert kernels.own_products().path is None


def test_doctor_names_it(library):
    assert doctor.products() == {"own": library.chosen, "instruction_sets": list(library.sets), **BUILT_IN}
    assert library.sets[-1] == kernels.SLOW


def test_many_sessions_from_many_threads(library):
    """Sessions are opened and run at once, and share a weight."""
    from concurrent.futures import ThreadPoolExecutor

    products = [RandomProduct(256, 64, bits, 32, seed=7) for bits in (2, 3, 4, 8)] * 4
    wanted = [product.session().run(None, {"x": activations(product, 3)})[0] for product in products]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda product: product.session(2).run(None, {"x": activations(product, 3)})[0], products)
        assert all(np.array_equal(y, z) for y, z in zip(found, wanted, strict=True))
