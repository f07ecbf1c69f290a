"""The runtime for browsers: held to Python's in Node, and talks in headless Chromium, also without the server."""

import json
import re
import shutil
from base64 import b64encode

import msgspec
import numpy as np
import pytest

import voxrill
from tests.command_line import run_alone
from tests.places import PEBBLE
from tests.talking import HELD_OUT, spoken
from tests.web.hosting import MODULES, WEB, needs_node, node
from voxrill.runtime.bundle.bundle import open_bundle, write_manifest
from voxrill.runtime.bundle.embedding_table import EmbeddingTable
from voxrill.runtime.bundle.manifest import Blocks, Table
from voxrill.runtime.engine.generate import Token
from voxrill.runtime.engine.sampling import Sampler
from voxrill.runtime.errors import BundleError, DataError, UsageError
from voxrill.runtime.upkeep import web_packages, web_site

# In Node


@needs_node
def test_types():
    node(MODULES / "typescript" / "bin" / "tsc", "--project", "tsconfig.json")


@needs_node
def test_golden_vectors_and_parts(tmp_path):
    """Every stage within the tolerances of docs/golden, log-mel within 1e-4; noise and table rows are Python's."""
    seeds = [0, 1, 7, 2**32 + 5]
    uniform = [
        {
            "seed": seed,
            "uniform": np.random.default_rng(seed).random(5, np.float32).tolist(),
            "gumbel": gumbel(seed, 64).tolist(),
        }
        for seed in seeds
    ]
    files = sorted((WEB / "tests").glob("*.test.js"))
    tables = [packed_table(tmp_path / f"{bits}.table", bits) for bits in (2, 3, 4)]
    told = node(
        "--test", *files, environment={"VOXRILL_UNIFORM": json.dumps(uniform), "VOXRILL_TABLES": json.dumps(tables)}
    )
    assert re.search(r"^# fail 0$", told, re.MULTILINE) and re.search(r"^# skipped 0$", told, re.MULTILINE)
    assert int(re.search(r"^# pass (\d+)$", told, re.MULTILINE)[1]) >= 14


def packed_table(path, bits):
    """A table of random blocks in a file, and its rows as Python reads them."""
    rows, width = 5, 40
    few = Blocks(bits=bits, size=16, factors="float32" if bits == 4 else "float16", zero_points=0)
    blocks, block, zeros = few.row(width)
    random = np.random.default_rng(bits)
    numbers = random.integers(0, 256, (rows, blocks, block), np.uint8).tobytes()
    points = random.integers(0, 2**bits if bits == 3 else 256, (rows, zeros), np.uint8).tobytes()
    factors = random.random((rows, blocks)).astype(few.factors).tobytes()
    path.write_bytes(b"beginning " + numbers + factors + points)
    few = msgspec.structs.replace(few, zero_points=10 + len(numbers) + len(factors))
    table = Table(path.name, 10, (rows, width), "uint8", 10 + len(numbers), blocks=few)
    expected = EmbeddingTable(path, table).rows(np.arange(rows)).tolist()
    return {"spec": msgspec.to_builtins(table), "file": b64encode(path.read_bytes()).decode(), "rows": expected}


def gumbel(seed, count):
    noise = np.empty(count, np.float32)
    Sampler(seed).gumbel_into(noise)
    return noise


@needs_node
def test_greedy_streams_are_pythons(tmp_path):
    """Transcripts and spoken answers of every clip that says something: the same tokens and codes.

    A stage rounds its inputs to 8 bits, so a difference in the last bit of a sum may become a whole step: Python itself
    says another code where a clip changes by a ten-millionth. Such a clip is rare, and the words of a command stay.
    """
    model = voxrill.load(threads=1)
    files, expected, commands = [], [], []
    for number, clip in enumerate(one for one in HELD_OUT if one["kind"] != "silence"):
        sound = model.parts.heard(spoken(clip), None)
        if not sound.any():
            continue
        files.append(tmp_path / f"{number}.f32")
        sound.astype("<f4").tofile(files[-1])
        expected.append({task: streams(model, task, sound) for task in ("transcribe", "chat")})
        commands.append(bool(clip["words"]))
    assert len(files) >= 30 and sum(commands) >= 20
    found = [json.loads(line) for line in node("tests/streams.js", *files).splitlines()]
    differing = [file.name for file, one, other in zip(files, found, expected, strict=True) if one != other]
    assert len(differing) <= len(files) / 10, differing
    said = [words(answers) for answers, command in zip(found, commands, strict=True) if command]
    assert said == [words(answers) for answers, command in zip(expected, commands, strict=True) if command]


def words(answers):
    """The tokens of every answer."""
    return {task: answer["tokens"] for task, answer in answers.items()}


def streams(model, name, sound):
    """What the Python runtime generates for a sound, as the Node script says it."""
    from voxrill.runtime.engine.conversation import Conversation
    from voxrill.runtime.engine.generate import Generation

    steps = []
    task = getattr(model.manifest.tasks, name)
    original = Generation.__iter__

    def kept(generation):
        for step in original(generation):
            steps.append(step)
            yield step

    Generation.__iter__ = kept
    try:
        output = "text" if name == "transcribe" else "both"
        list(Conversation(model.parts, task).steps(audio=sound, output=output, trim=False))
    finally:
        Generation.__iter__ = original
    return {
        "tokens": [step.id for step in steps if isinstance(step, Token)],
        "codes": [step.codes.tolist() for step in steps if not isinstance(step, Token)],
    }


# Decoders of quantised bundles, which have operators of our own as ONNX functions


@pytest.fixture(scope="module")
def eight_bit_cache(tmp_path_factory):
    """Pebble with an 8-bit KV cache."""
    pytest.importorskip("onnx", reason="quantizing needs onnx: pip install 'voxrill[quantize]'")
    from voxrill.quantize.bundle import with_cache
    from voxrill.quantize.kv_cache import hold_cache_in_int8, measure_scales

    folder = tmp_path_factory.mktemp("cache") / "pebble"
    shutil.copytree(PEBBLE, folder)
    model = voxrill.load(threads=1)
    hold_cache_in_int8(folder / "decoder.onnx", measure_scales(model))
    write_manifest(folder, msgspec.structs.replace(model.manifest, model=with_cache(model.manifest.model, "int8")))
    return folder


@pytest.fixture(scope="module")
def three_bits(bundles, tmp_path_factory):
    """A tiny bundle whose decoder has weights of 3 bits, and an 8-bit KV cache."""
    pytest.importorskip("onnx", reason="quantizing needs onnx: pip install 'voxrill[quantize]'")
    from voxrill.quantize.bundle import quantize_bundle
    from voxrill.quantize.recipe import KvCache, Recipe, Rule

    recipe = Recipe("test", (Rule(8), Rule(3, "decoder", "*", 32)), kv_cache=KvCache(8))
    folder = tmp_path_factory.mktemp("three") / "small"
    return quantize_bundle(open_bundle(bundles["lfm2.5"]), folder, recipe).directory


@needs_node
@pytest.mark.filterwarnings("ignore:weights of 3 bits:voxrill.VoxrillWarning")
@pytest.mark.parametrize("kind", ["eight_bit_cache", "three_bits"])
def test_a_quantised_decoder_is_pythons(kind, request, tmp_path):
    """Prefill, steps, few and many positions at once: the same hidden states and caches, but for rounding."""
    folder, counts = request.getfixturevalue(kind), (20, 1, 3, 1, 15)
    model = voxrill.load(folder, threads=1)
    backbone, size = model.parts.backbone, model.manifest.model.backbone.hidden_size
    rows = np.random.default_rng(0).standard_normal((sum(counts), size)).astype("<f4")
    (tmp_path / "rows").write_bytes(rows.tobytes())
    found = json.loads(node("tests/decoder.js", folder, tmp_path / "rows", *counts))
    state = backbone.new_state()
    for part, hidden in zip(np.split(rows, np.cumsum(counts)[:-1]), found["hidden"], strict=True):
        assert alike(backbone.forward(part, state)[-1], hidden)
    content = {name: rows for name, rows in state.content().items() if name in found["caches"]}
    assert len(content) == len(found["caches"]) > 0
    for name, held in content.items():
        heads, length, width = held.shape[1:]
        assert held.dtype == np.int8
        assert alike(held, np.reshape(found["caches"][name], (1, heads, -1, width))[:, :, :length])


def alike(one, other):
    """Whether two arrays point the same way; products round activations to 8 bits, so that small differences grow."""
    one, other = (np.ravel(array).astype(np.float64) for array in (one, other))
    return one @ other > 0.99 * np.sqrt((one @ one) * (other @ other))


# The site


@needs_node
def test_a_site_holds_the_bundle_in_parts(site):
    promised = json.loads((site / web_site.SITE_FILE).read_text())
    bundle = open_bundle(PEBBLE)
    for file in promised["files"]:
        content = b"".join((site / part["path"]).read_bytes() for part in file["parts"])
        if file["name"] in bundle.manifest.files:
            assert content == bundle.path(file["name"]).read_bytes()
    assert {file["name"] for file in promised["files"]} >= {"manifest.json", "decoder.onnx", "silero.onnx"}
    kept = json.loads(re.search(r"const FILES = (\[.*\]);", (site / "service_worker.js").read_text())[1])
    assert all((site / name).exists() for name in kept) and "site.json" in kept and "@" not in "".join(kept)
    page = (site / "index.html").read_text()
    assert "Content-Security-Policy" in page and "//" not in re.sub(r"<!--.*?-->", "", page).replace("</", "")


@needs_node
def test_a_large_file_is_cut(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(web_site, "_PART", 500_000)
    web_site.write_site(open_bundle(PEBBLE), tmp_path / "site", packages, False, lambda _name, _bytes: None)
    (decoder,) = (
        file
        for file in json.loads((tmp_path / "site" / "site.json").read_text())["files"]
        if file["name"] == "decoder.onnx"
    )
    assert len(decoder["parts"]) == 4 and all(part["size"] <= 500_000 for part in decoder["parts"])


@needs_node
def test_only_a_site_is_replaced(packages, tmp_path):
    bundle, quiet = open_bundle(PEBBLE), lambda _name, _bytes: None
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="is not a site"):
        web_site.write_site(bundle, tmp_path / "mine", packages, True, quiet)
    web_site.write_site(bundle, tmp_path / "site", packages, False, quiet)
    with pytest.raises(UsageError, match="--force"):
        web_site.write_site(bundle, tmp_path / "site", packages, False, quiet)
    web_site.write_site(bundle, tmp_path / "site", packages, True, quiet)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_bundle_that_no_browser_runs_is_refused(monkeypatch):
    manifest = open_bundle(PEBBLE).manifest
    monkeypatch.setattr(web_site, "LARGEST", 1000)
    with pytest.raises(BundleError, match="voxrill serve"):
        web_site.check_bundle(manifest)


def test_packages_that_were_not_tested_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"ort\.wasm\.min\.mjs is missing"):
        web_packages.web_packages(tmp_path)
    (tmp_path / "ort.wasm.min.mjs").write_text("alert(1)")
    with pytest.raises(DataError, match="not the file that was tested"):
        web_packages.web_packages(tmp_path)


def test_without_npm_the_command_names_the_remedy(tmp_path):
    nowhere = {"PATH": "/nowhere", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    ran = run_alone("web", "-o", tmp_path / "site", cwd=tmp_path, **nowhere)
    assert ran.status == 2 and "npm is not installed" in ran.err and "--packages" in ran.err
    assert not (tmp_path / "site").exists()


def test_package_json_names_the_same_versions():
    assert json.loads((WEB / "package.json").read_text())["dependencies"] == web_packages.PACKAGES


@needs_node
def test_the_server_lends_its_place(tmp_path, site):
    """voxrill serve --web: no key is needed, threads are possible from the first visit, and nothing else is lent."""
    pytest.importorskip("starlette", reason="the serve extra is not installed")
    from starlette.testclient import TestClient

    from voxrill.runtime.serve.access import Admission
    from voxrill.runtime.serve.app import make_app
    from voxrill.runtime.serve.limits import Limits
    from voxrill.runtime.serve.site import check_site
    from voxrill.runtime.serve.wyoming.server import Wyoming

    app = make_app(voxrill.load(threads=1), Limits(), Admission("a-key-of-24-characters-x", ()), Wyoming(), site=site)
    client = TestClient(app)
    page = client.get("/web/")
    assert page.status_code == 200 and page.headers["cross-origin-embedder-policy"] == "require-corp"
    assert client.get("/web/vendor/ort.wasm.min.mjs").headers["content-type"] == "text/javascript"
    assert client.get("/web/bundle/decoder.onnx.000").status_code == 200
    assert client.get("/web/../v1/models").status_code == client.get("/v1/models").status_code == 401
    assert client.get("/web/%2e%2e/%2e%2e/etc/passwd").status_code in (401, 404)
    with pytest.raises(UsageError, match="is not a site"):
        check_site(tmp_path)
