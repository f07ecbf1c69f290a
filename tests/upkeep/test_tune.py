"""The tuned form gives the same bits, is never trusted when stale or damaged; a model that does not fit is refused."""

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import platformdirs
import pytest

import voxrill
from tests.command_line import clean_environment, contents
from voxrill.devices import memory as machine
from voxrill.devices import overflow
from voxrill.devices.processor import processor
from voxrill.runtime.bundle import memory, tuned
from voxrill.runtime.bundle.builtin import open_builtin
from voxrill.runtime.bundle.bundle import hash_file, open_bundle
from voxrill.runtime.bundle.contract import AUDIO_ENCODER
from voxrill.runtime.bundle.manifest import FLOAT32, read_manifest
from voxrill.runtime.bundle.memory import memory_needed
from voxrill.runtime.bundle.tuned import PLAIN, NotTuned, fingerprint, open_tuned, read_tuned_file, tuned_folder
from voxrill.runtime.engine.engine import Engine, Inexact
from voxrill.runtime.errors import BundleError, NotEnoughMemory
from voxrill.runtime.upkeep import threads, tuning

TIMINGS = {1: {"prefill": 90.0, "step": 3.0, "frame": 2.0}, 2: {"prefill": 50.0, "step": 2.0, "frame": 1.5}}


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """The user's cache, in which tuned forms lie: a folder of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def quick_sweep(monkeypatch):
    """What the sweep and the comparison measure is not what is tested here; mapped weights win."""
    monkeypatch.setattr(tuning, "sweep", lambda *_: TIMINGS)
    monkeypatch.setattr(tuning, "mapped_and_copied", lambda *_: (1.0, 2.0))


@pytest.fixture
def pebble(tmp_path) -> Path:
    """The built-in bundle in a folder of its own."""
    shutil.copytree(open_builtin().directory, tmp_path / "pebble")
    return tmp_path / "pebble"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The built-in bundle, tuned; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "sweep", lambda *_: TIMINGS)
        folder = tmp_path_factory.mktemp("tuned") / "pebble"
        shutil.copytree(open_builtin().directory, folder)
        tuning.tune(open_bundle(folder))
    return folder


@pytest.fixture
def ready(made, tmp_path) -> Path:
    """A tuned bundle to damage."""
    folder = Path(shutil.copytree(made, tmp_path / "bundle"))
    shutil.copytree(tuned_folder(made), tuned_folder(folder))
    return folder


def flip_a_byte(path, at):
    facts = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as a failing disk would: the time tells nothing


def rewrite(folder, **changes):
    """Change what tuned.json says."""
    path = tuned_folder(folder) / "tuned.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def same_bits(bundle, count=1):
    opened = open_bundle(bundle)
    plain, fitted = Engine(opened, count, PLAIN), Engine(opened, count)
    assert fitted.tuned.graphs and not plain.tuned.graphs
    for wanted, found in zip(tuning.outputs(plain), tuning.outputs(fitted), strict=True):
        np.testing.assert_array_equal(wanted, found)


# What it gives


@pytest.mark.parametrize("count", [1, 2])
def test_the_same_bits(made, count):
    same_bits(made, count)


@pytest.mark.parametrize("family", ["lfm2", "lfm2.5"])
def test_the_same_bits_in_float32(bundles, tmp_path, family):
    """Of a float32 bundle only the encoder is repacked, and so tuned."""
    folder = shutil.copytree(bundles[family], tmp_path / "b")
    assert tuning.tune(open_bundle(folder)).graphs == [AUDIO_ENCODER]
    same_bits(folder)


def test_the_same_bits_in_four(bundles, tmp_path, recipe_file):
    pytest.importorskip("onnx", reason="the quantize extra is not installed")
    from voxrill.quantize.bundle import quantize_bundle
    from voxrill.quantize.recipe import read_recipe

    quantized = quantize_bundle(open_bundle(bundles["lfm2"]), tmp_path / "b", read_recipe(str(recipe_file)))
    assert {"int4", "mixed"} & {graph.precision for graph in quantized.manifest.graphs.values()}
    assert set(tuning.tune(quantized).graphs) > {"decoder", "depthformer"}
    same_bits(tmp_path / "b")


@pytest.fixture
def recipe_file(tmp_path):
    """The int4 recipe with blocks that fit the tiny models."""
    path = tmp_path / "recipe.toml"
    path.write_text(
        'about = "tiny"\n[[weights]]\nbits = 8\n[[weights]]\ngraph = "decoder*"\nbits = 4\nblock = 32\n'
        '[[weights]]\ngraph = "depthformer"\nname = "depthformer.layers.*"\nbits = 4\nblock = 32\n'
    )
    return path


def test_shared_weights_stay_one_copy(made):
    """The depthformer uses each of its weights eight times; as it was and repacked make two."""
    weights = (made / "depthformer.onnx").stat().st_size
    assert (tuned_folder(made) / "depthformer.onnx.data").stat().st_size < 2.5 * weights


def test_the_other_commands_are_not_disturbed(cli, ready):
    with_it = [cli("inspect", "bundle", "--json").raw, cli("pack", "bundle", "-o", "a.voxrill").status]
    assert contents(ready) == contents(open_builtin().directory)
    shutil.rmtree(tuned_folder(ready))
    assert with_it == [cli("inspect", "bundle", "--json").raw, cli("pack", "bundle", "-o", "b.voxrill").status]
    assert Path("a.voxrill").read_bytes() == Path("b.voxrill").read_bytes()


def test_the_command(cli, pebble):
    ran = cli("tune", pebble)
    assert ran.status == 0 and ran.err == ""
    for wanted in ("5 graphs, the same bits as before", "loading:", "2 threads: prefill 50.0 ms", "(the best)"):
        assert wanted in ran.out
    assert contents(pebble) == contents(open_builtin().directory)


def test_the_command_for_machines(cli, pebble):
    found = json.loads(cli("tune", pebble, "--json").out)
    assert found["threads"] == 2 and found["size"] > 0 and len(found["graphs"]) == 5
    assert found["timings"] == {str(count): stages for count, stages in TIMINGS.items()}


# The number of threads


def test_the_number_of_threads_is_remembered(made):
    assert voxrill.load(made).threads == 2
    assert voxrill.load(made, threads=1).threads == 1
    assert Engine(open_bundle(made), 0, PLAIN).threads == 0


def test_more_threads_must_be_worth_it():
    assert threads.best(TIMINGS) == 2
    assert threads.best({1: TIMINGS[1], 2: TIMINGS[1]}) == 1
    assert threads.best({1: TIMINGS[1], 2: TIMINGS[2], 4: {**TIMINGS[2], "prefill": 49.0}}) == 2


def test_the_sweep(pebble, monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 3)
    told = []
    timings = threads.sweep(open_bundle(pebble), PLAIN, told.append)
    assert list(timings) == [1, 2, 3] and told
    assert all(set(stages) == {"prefill", "step", "frame"} for stages in timings.values())
    assert all(ms > 0 for stages in timings.values() for ms in stages.values())


# Never trusted


@pytest.mark.parametrize("part", ["processor", "onnxruntime", "manifest"])
def test_a_stale_form_is_not_used(ready, part):
    key = msgspec.to_builtins(read_tuned_file(tuned_folder(ready)).key)
    rewrite(ready, key={**key, part: "another"})
    with pytest.warns(NotTuned, match=f"another .*{'bundle' if part == 'manifest' else part}.*voxrill tune"):
        model = voxrill.load(ready)
    assert not model.tuned.graphs and model.threads == 0


def test_a_form_of_a_voxrill_without_exact_products_is_used_only_where_none_overflows(ready, monkeypatch):
    key = json.loads((tuned_folder(ready) / "tuned.json").read_text())["key"]
    key.pop("options", None)
    rewrite(ready, key=key)
    monkeypatch.setattr(overflow, "products_overflow", lambda: False)
    assert open_tuned(open_bundle(ready)).graphs
    monkeypatch.setattr(overflow, "products_overflow", lambda: True)
    with pytest.warns(NotTuned, match="made for another version of Voxrill.*voxrill tune"):
        assert open_tuned(open_bundle(ready)) == PLAIN


def test_a_graph_without_exact_products_is_left_out(pebble, refuses_exact_products):
    """Each load warns of it, and a tuned graph loads without."""
    refuses_exact_products("depthformer.onnx")
    with pytest.warns(Inexact, match="depthformer"):
        made = tuning.tune(open_bundle(pebble))
    assert "decoder" in made.graphs and "depthformer" not in made.graphs
    with pytest.warns(Inexact, match="depthformer"):
        assert voxrill.load(pebble, threads=1).tuned.graphs.keys() == set(made.graphs)


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def touch(path):
    os.utime(path, ns=(0, 0))


DAMAGES = {
    "truncated": truncate,
    "first-byte": lambda path: flip_a_byte(path, 0),
    "last-byte": lambda path: flip_a_byte(path, -1),
    "written-again": touch,
    "missing": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("file", ["decoder.onnx", "decoder.onnx.data"])
def test_a_damaged_form_is_not_used_and_made_anew(ready, file, damage):
    damage(tuned_folder(ready) / file)
    with pytest.warns(NotTuned, match="voxrill tune"):
        assert open_tuned(open_bundle(ready)) == PLAIN


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b'{"key": 3}'], ids=["empty", "no-fields", "no-text", "wrong-type"]
)
def test_an_unreadable_tuned_json(ready, content):
    (tuned_folder(ready) / "tuned.json").write_bytes(content)
    with pytest.warns(NotTuned):
        assert open_tuned(open_bundle(ready)) == PLAIN


@pytest.mark.parametrize("graphs", [{"nonsense": "decoder.onnx"}, {"decoder": "../decoder.onnx"}])
def test_a_changed_tuned_json(ready, graphs):
    rewrite(ready, graphs=graphs)
    with pytest.warns(NotTuned, match="was changed"):
        assert open_tuned(open_bundle(ready)) == PLAIN


def test_tuning_again_repairs(ready):
    truncate(tuned_folder(ready) / "decoder.onnx.data")
    tuning.tune(open_bundle(ready))
    same_bits(ready)


def test_samples_of_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tuned, "HASHED_ON_OPEN", 1 << 20)
    path = tmp_path / "large"
    path.write_bytes(np.random.default_rng(0).bytes(4 << 20))
    wanted = fingerprint(path)
    assert fingerprint(path) == wanted
    for at in (0, (4 << 20) - 1):
        flip_a_byte(path, at)
        assert fingerprint(path).sha256 != wanted.sha256
        flip_a_byte(path, at)
    data = bytearray(path.read_bytes())
    data[1 << 20 : 2 << 20] = bytes(1 << 20)  # pages that a power cut lost
    path.write_bytes(data)
    assert fingerprint(path).sha256 != wanted.sha256


# Forged


def speaks_of(folder):
    """What a bundle answers to a command."""
    *_, end = voxrill.load(folder, threads=1).chat(text="kitchen lights on", output="text")
    return end.result.text


@pytest.fixture
def forged(ready) -> Path:
    """Another model's tuned form, with a matching tuned.json: the text head says other words."""
    onnx = pytest.importorskip("onnx", reason="the quantize extra is not installed")
    folder = tuned_folder(ready)
    graph = onnx.load(str(folder / "text_head.onnx"), load_external_data=False)
    place = next(
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in graph.graph.initializer
        if tensor.name.endswith("_scales") and tensor.external_data
    )
    data = folder / "text_head.onnx.data"
    content = bytearray(data.read_bytes())
    start, length = int(place["offset"]), int(place["length"])
    content[start : start + length] = bytes(length)
    data.write_bytes(content)
    found = read_tuned_file(folder)
    files = {name: tuned.WrittenFile(fingerprint(folder / name), hash_file(folder / name)) for name in found.files}
    (folder / "tuned.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(found, files=files)))
    return ready


def test_a_forged_form_would_change_the_answer(forged, made):
    assert speaks_of(forged) != speaks_of(made)


def test_a_form_that_comes_with_the_bundle_is_not_used(forged, made, tmp_path):
    """As somebody sends it who can write the bundle's folder, and not this user's."""
    sent = Path(shutil.copytree(made, tmp_path / "sent"))
    shutil.copytree(tuned_folder(forged), sent / "tuned")
    (sent / "compiled").mkdir()
    assert voxrill.load(sent).tuned == PLAIN
    assert speaks_of(sent) == speaks_of(made)


def enterable(folder, monkeypatch):
    folder.chmod(0o755)


def another_user_s(folder, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)


def a_link(folder, monkeypatch):
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
@pytest.mark.parametrize("change", [enterable, another_user_s, a_link])
def test_a_form_that_others_can_write_is_not_used(ready, monkeypatch, change):
    change(tuned_folder(ready), monkeypatch)
    with pytest.warns(NotTuned, match="other users may enter|another user's"):
        assert open_tuned(open_bundle(ready)) == PLAIN


def test_only_the_user_may_enter_what_tune_writes(made):
    if os.name != "nt":
        assert tuned_folder(made).stat().st_mode & 0o777 == 0o700


def test_what_was_changed_is_not_tuned(cli, pebble, monkeypatch):
    """Else a form of other weights would outlive the bundle they stood in."""
    monkeypatch.setattr("voxrill.runtime.bundle.bundle.HASHED_ON_OPEN", 0)
    flip_a_byte(pebble / "decoder.onnx", -1000)
    cli.refuses("tune", "pebble", saying="decoder.onnx does not have the SHA-256")
    assert not tuned_folder(pebble).exists()


def test_verify_compares_all_of_the_form(cli, ready, monkeypatch):
    monkeypatch.setattr(tuned, "_SAMPLES", 2)
    monkeypatch.setattr(tuned, "HASHED_ON_OPEN", 1 << 18)
    folder = tuned_folder(ready)
    found = read_tuned_file(folder)
    files = {
        name: msgspec.structs.replace(f, fingerprint=fingerprint(folder / name)) for name, f in found.files.items()
    }
    (folder / "tuned.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(found, files=files)))
    ran = cli("verify", "bundle")
    assert f"{folder}: {len(files)} files of the tuned form: all as voxrill tune wrote them" in ran.out
    assert json.loads(cli("verify", "bundle", "--json").out)["tuned"] == len(files)
    flip_a_byte(folder / "decoder.onnx.data", (folder / "decoder.onnx.data").stat().st_size // 3)
    assert open_tuned(open_bundle(ready)).graphs  # what a load compares has not changed
    cli.refuses("verify", "bundle", saying=("decoder.onnx.data", "is not as voxrill tune wrote it"))


def test_verify_names_what_the_manifest_does_not_list(cli, ready):
    (ready / "notes.txt").write_text("years")
    assert "1 further files, which the manifest does not list: notes.txt" in cli("verify", "bundle").out
    assert json.loads(cli("verify", "bundle", "--json").out)["unlisted"] == ["notes.txt"]


def test_the_command_line_warns_in_one_line(cli, ready):
    rewrite(ready, threads="two")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        ran = cli("chat", "--text", "kitchen lights on", "--output", "text", "--bundle", ready)
    assert ran.status == 0 and ran.out.strip()
    assert ran.err.splitlines()[0].startswith("voxrill: the tuned form of ") and "voxrill tune" in ran.err
    assert ran.err.count("\n") == 2  # and how long it took


def test_two_at_once_do_not_break_each_other(pebble, tmp_path):
    command = [sys.executable, "-m", "voxrill", "tune", pebble, "--json"]
    with ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(subprocess.run, command, capture_output=True, env=clean_environment(), timeout=300)
            for _ in range(2)
        ]
    for run in runs:
        ended = run.result()
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["size"] > 0
    same_bits(pebble)
    forms = tuned_folder(pebble)
    assert [path.name for path in forms.parent.iterdir() if forms.name in path.name] == [forms.name]


# What goes wrong while tuning

FAILURES = {
    "full-disk": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
    "ctrl-c": (KeyboardInterrupt(), "interrupted"),
}


@pytest.mark.parametrize(("error", "says"), FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("place", ["_write", "_finish"])
def test_a_failure_leaves_what_was_there(cli, ready, monkeypatch, error, says, place):
    def fail(*_):
        raise error

    monkeypatch.setattr(tuning, "_compared", lambda *_: (tuning.Load(1.0, None), tuning.Load(1.0, None)))
    monkeypatch.setattr(tuning, place, fail)
    cli.refuses("tune", "bundle", saying=(says, "bundle works without it"))
    assert open_tuned(open_bundle(ready)).graphs


def test_little_space(cli, pebble, monkeypatch):
    usage = shutil.disk_usage(pebble)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    cli.refuses("tune", "pebble", saying=("0.0 GB are free", "Free some space"))


def test_other_numbers_are_not_kept(cli, pebble, monkeypatch):
    monkeypatch.setattr(tuning, "outputs", lambda _model: [np.random.default_rng().random(3)])
    cli.refuses("tune", "pebble", saying="other numbers than the bundle")


def test_a_home_that_cannot_be_written(cli, pebble, monkeypatch):
    """By what mkdir raises: the tests may run as root, whom no permission stops."""

    def refuse(path, *_args, **_options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    says = (f"{tuned_folder(pebble)} cannot be written (Permission denied)", "the bundle works without it")
    cli.refuses("tune", "pebble", saying=says)


def test_a_user_without_a_home(cli, pebble, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_args, **_options: "~/.cache/voxrill")
    cli.refuses("tune", "pebble", saying=("no home folder", "XDG_CACHE_HOME"))
    assert voxrill.load(pebble, threads=1).tuned == PLAIN


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid"), reason="Windows has other permissions")
def test_a_bundle_that_nobody_may_write_is_tuned(pebble):
    for path in (pebble, *pebble.iterdir()):
        path.chmod(path.stat().st_mode & ~0o222)
    tuning.tune(open_bundle(pebble))
    assert voxrill.load(pebble, threads=1).tuned.graphs
    pebble.chmod(0o755)


def test_what_onnxruntime_cannot_write(pebble, monkeypatch):
    monkeypatch.setattr(tuning, "tuning_options", lambda target: original(target / "no" / "such"))
    with pytest.raises(BundleError, match="cannot be written"):
        tuning.tune(open_bundle(pebble))
    assert not tuned_folder(pebble).exists()


original = tuning.tuning_options


# Memory


def fake_machine(tmp_path, meminfo, cgroup="", files=()):
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(meminfo)
    (proc / "self" / "cgroup").write_text(cgroup)
    for name, content in dict(files).items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(content)
    return machine.available_memory(proc, groups)


MEMINFO = "MemTotal:       8000 kB\nMemFree:         100 kB\nMemAvailable:    4000 kB\n"
ONE = {"memory/a/memory.limit_in_bytes": "2000000\n", "memory/a/memory.usage_in_bytes": "1500000\n"}
TWO = {"a/memory.max": "3000000\n", "a/memory.current": "2000000\n", "a/memory.stat": "anon 5\ninactive_file 500000\n"}


@pytest.mark.parametrize(
    ("meminfo", "cgroup", "files", "wanted"),
    [
        (MEMINFO, "", {}, 4_096_000),
        ("", "", {}, None),
        (MEMINFO, "0::/a/b\n", TWO, 1_500_000),
        (MEMINFO, "0::/\n", {"memory.max": "max\n", "memory.current": "2000\n"}, 4_096_000),
        (MEMINFO, "4:memory:/a\n0::/\n", ONE, 500_000),
        (MEMINFO, "0::/a\n", {**TWO, "a/memory.current": "9000000\n"}, 0),
    ],
    ids=["meminfo", "elsewhere", "version-2", "no-limit", "version-1", "beyond"],
)
def test_available_memory(tmp_path, meminfo, cgroup, files, wanted):
    assert fake_machine(tmp_path, meminfo, cgroup, files) == wanted


def test_a_model_that_does_not_fit_is_refused(cli, pebble, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 5_000_000)
    monkeypatch.setattr("voxrill.runtime.engine.engine.Graph", None)  # nothing is loaded
    says = ("pebble needs about", "5 MB are available", "set VOXRILL_IGNORE_MEMORY=1")
    cli.refuses("chat", "--text", "hello", "--output", "text", "--bundle", "pebble", saying=says)
    cli.refuses("tune", "pebble", saying=says)


def grown(manifest, precision, factor):
    """A manifest of larger files, all in one precision."""
    files = {n: msgspec.structs.replace(e, size=factor * e.size) for n, e in manifest.files.items()}
    graphs = {n: msgspec.structs.replace(g, precision=precision) for n, g in manifest.graphs.items()}
    return msgspec.structs.replace(manifest, files=files, graphs=graphs)


@pytest.mark.parametrize(
    ("precision", "share", "says"),
    [
        (FLOAT32, 0.5, "In int8 about .* --recipe int8"),
        (FLOAT32, 0.26, "In int4 about .* --recipe int4"),
        (FLOAT32, 0.01, "even in int4 it would not fit"),
        ("int8", 0.6, "--recipe int4"),
        ("int4", 0.6, "Close other programs; to load"),
    ],
)
def test_the_next_smaller_choice_is_named(pebble, monkeypatch, precision, share, says):
    """Where a share of the needed memory is available. The recipes' own shares are 0.30 and 0.20 of the weights."""
    manifest = grown(read_manifest(pebble), precision, 1000)
    monkeypatch.setattr(memory, "available_memory", lambda: int(share * memory_needed(manifest)))
    bundle = open_bundle(pebble)
    with pytest.raises(NotEnoughMemory, match=says):
        memory.check_memory(type(bundle)(bundle.directory, manifest))


@pytest.mark.parametrize("reason", ["fits", "told-so", "not-known"])
def test_a_model_that_fits_is_loaded(pebble, monkeypatch, reason):
    found = {"fits": memory_needed(read_manifest(pebble)), "told-so": 1, "not-known": None}[reason]
    monkeypatch.setattr(memory, "available_memory", lambda: found)
    if reason == "told-so":
        monkeypatch.setenv(memory.IGNORE_VARIABLE, "1")
    assert voxrill.load(pebble, threads=1).sample_rate == 24000


# The processor


def test_processors_are_told_apart(tmp_path):
    def named(text):
        (tmp_path / "cpuinfo").write_text(text)
        return processor(tmp_path / "cpuinfo")

    x86 = "model name\t: Some CPU\nflags\t\t: avx2 avx512_vnni\ncpu MHz\t: {}\n"
    pi = "CPU implementer\t: 0x41\nFeatures\t: asimddp\nCPU part\t: 0xd0b\n"
    assert named(x86.format(1)) == named(x86.format(2)) and "Some CPU" in named(x86)
    assert named(x86) != named(x86.replace(" avx512_vnni", ""))
    assert named(pi) != named(pi.replace("0xd0b", "0xd08")) and "0xd0b" in named(pi)
    assert processor(tmp_path / "none")


# Mapped weights, or copied ones on huge pages


@pytest.fixture
def large(monkeypatch):
    """Pebble counts as a model that gains by huge pages; `large(mapped, copied)` says what its answers take."""
    monkeypatch.setattr(tuning, "gains", lambda size: True)
    return lambda *answers: monkeypatch.setattr(tuning, "mapped_and_copied", lambda *_: answers)


def test_the_faster_of_mapped_and_copied_weights_is_kept(pebble, large, cli):
    large(20.0, 15.6)
    ran = cli("tune", pebble)
    assert "mapped 20 ms, copied 16 ms; they will be copied onto huge pages" in ran.out
    fitted = voxrill.load(pebble)
    assert not fitted.tuned.graphs and fitted.threads == 2  # only the number of threads is kept
    assert os.listdir(tuned_folder(pebble)) == ["tuned.json"]
    large(15.6, 15.5)
    report = json.loads(cli("tune", pebble, "--json").out)
    assert report["graphs"] and report["answers"] == {"mapped": 15.6, "copied": 15.5}
    assert voxrill.load(pebble).tuned.graphs


def test_without_room_for_a_copy_weights_are_mapped(pebble, large, monkeypatch):
    large(20.0, 1.0)
    monkeypatch.setattr(tuning, "available_memory", lambda: memory_needed(open_bundle(pebble).manifest))
    assert tuning.tune(open_bundle(pebble)).graphs


def test_both_are_timed_in_turn(pebble):
    told = []
    times = threads.mapped_and_copied(open_bundle(pebble), PLAIN, 1, told.append)
    assert len(told) == threads.TURNS and min(times) > 0
