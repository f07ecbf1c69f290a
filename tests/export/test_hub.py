"""Checkpoints by hub id, against a hub on this machine: pinned, resumable, and from the cache when offline."""

import hashlib
import importlib.util
import json
import subprocess
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.command_line import Ran, check_refusal, clean_environment, contents

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None, reason="the hub extra is not installed"
)

REPOSITORY = "acme/tiny"
COMMITS = {"main": "a" * 40, "v1": "b" * 40}
WEIGHTS = "model.safetensors"

FIND = """
import json, sys
from voxrill.export.hub import find_checkpoint
found = find_checkpoint(sys.argv[1], revision=sys.argv[2] or None, offline=sys.argv[3] == "offline")
print(json.dumps({"name": found.name, "revision": found.revision, "directory": str(found.directory)}))
"""


class Hub:
    """A hub that serves one folder as `REPOSITORY`.

    requests: what was asked for, as (method, path, Range header); cut_after: bytes of the weights after which the
    connection breaks, once.
    """

    def __init__(self, folder):
        self.folder = folder
        self.requests = []
        self.cut_after = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                hub.answer(self, body=False)

            def do_GET(self):
                hub.answer(self, body=True)

            def log_message(self, *_arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def downloads(self, file):
        """The Range headers of the downloads of `file`."""
        return [span for method, path, span in self.requests if method == "GET" and path.endswith(f"/{file}")]

    def answer(self, request, body):
        path = request.path.split("?")[0]
        self.requests.append((request.command, path, request.headers.get("Range")))
        for revision, commit in [*COMMITS.items(), *((commit, commit) for commit in COMMITS.values())]:
            if path == f"/api/models/{REPOSITORY}/revision/{revision}":
                return self.describe(request, commit)
            prefix = f"/{REPOSITORY}/resolve/{revision}/"
            if path.startswith(prefix) and (self.folder / path.removeprefix(prefix)).is_file():
                return self.send_file(request, path.removeprefix(prefix), commit, body)
        request.send_response(HTTPStatus.NOT_FOUND)
        request.send_header("X-Error-Code", "RevisionNotFound" if REPOSITORY in path else "RepoNotFound")
        request.send_header("X-Error-Message", "Not here")
        request.send_header("Content-Length", "0")
        request.end_headers()

    def describe(self, request, commit):
        names = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]
        text = json.dumps({"id": REPOSITORY, "sha": commit, "siblings": [{"rfilename": name} for name in names]})
        request.send_response(HTTPStatus.OK)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text.encode())

    def send_file(self, request, name, commit, body):
        data = (self.folder / name).read_bytes()
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        request.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        request.send_header("X-Repo-Commit", commit)
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        stop = len(data)
        if name == WEIGHTS and body and self.cut_after:
            stop, self.cut_after = self.cut_after, None
        if body:
            request.wfile.write(data[start:stop])


@pytest.fixture
def hub(tiny_checkpoints):
    """The tiny checkpoint on a hub."""
    served = Hub(tiny_checkpoints["lfm2"])
    yield served
    served.stop()


def environment(hub, cache):
    return clean_environment(
        HF_ENDPOINT=hub.url,
        HF_HOME=str(cache),
        HF_HUB_CACHE=str(cache / "hub"),
        HF_TOKEN="",
        HF_HUB_OFFLINE="0",
        HF_HUB_DISABLE_XET="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        HF_HUB_ENABLE_HF_TRANSFER="0",
        NO_PROXY="127.0.0.1",
        no_proxy="127.0.0.1",
    )


def run(hub, folder, *command):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        cwd=folder,
        env=environment(hub, folder / "cache"),
        timeout=120,
    )
    return Ran(done.returncode, done.stdout, done.stderr.decode())


def find(hub, folder, revision="", offline=False):
    """Find the checkpoint in a process of its own (the hub's address is read when its package is imported)."""
    return run(hub, folder, "-c", FIND, REPOSITORY, revision, "offline" if offline else "online")


def assert_found(ran, hub, commit):
    assert ran.status == 0, ran.err
    found = json.loads(ran.out)
    assert (found["name"], found["revision"]) == (REPOSITORY, commit)
    assert contents(Path(found["directory"])) == contents(hub.folder)


def test_a_download_is_pinned_to_its_commit_and_what_is_there_is_not_fetched_again(hub, tmp_path):
    assert_found(find(hub, tmp_path), hub, COMMITS["main"])
    assert_found(find(hub, tmp_path, revision="v1"), hub, COMMITS["v1"])
    assert len(hub.downloads(WEIGHTS)) == 1


def test_an_interrupted_download_goes_on_where_it_stopped(hub, tmp_path):
    size = (hub.folder / WEIGHTS).stat().st_size
    hub.cut_after = size // 2
    ran = find(hub, tmp_path)
    if ran.status:  # it depends on huggingface_hub's release whether it tries again by itself
        assert "Run the same command again to resume" in ran.err
        ran = find(hub, tmp_path)
    assert_found(ran, hub, COMMITS["main"])
    first, second = hub.downloads(WEIGHTS)
    assert first is None
    assert 0 < int(second.removeprefix("bytes=").split("-")[0]) <= size // 2


def test_an_interrupted_download_is_one_line(hub, tmp_path):
    hub.cut_after = 1000
    ran = run(hub, tmp_path, "-m", "voxrill", "export", REPOSITORY, "-o", "bundle", "--graphs", "none")
    if "no graph none" not in ran.err:  # that is how far it gets if huggingface_hub tried again by itself
        check_refusal(ran, (f"{REPOSITORY} cannot be downloaded", "Run the same command again to resume"))
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_what_was_downloaded_is_found_offline(hub, tmp_path):
    assert_found(find(hub, tmp_path), hub, COMMITS["main"])
    hub.stop()
    hub.requests.clear()
    assert_found(find(hub, tmp_path, offline=True), hub, COMMITS["main"])
    assert hub.requests == []


def export(hub, folder, *arguments):
    return run(hub, folder, "-m", "voxrill", "export", *arguments, "-o", "bundle")


def test_offline_without_a_download(hub, tmp_path):
    ran = export(hub, tmp_path, REPOSITORY, "--offline")
    check_refusal(ran, (f"{REPOSITORY} is not in the local cache", "Connect to the network"))
    assert hub.requests == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["acme/unknown"], "acme/unknown is neither a folder here nor a repository of the hub"),
        ([REPOSITORY, "--revision", "v9"], f"{REPOSITORY} has no revision v9"),
    ],
    ids=["repository", "revision"],
)
def test_what_the_hub_does_not_have(hub, tmp_path, arguments, says):
    check_refusal(export(hub, tmp_path, *arguments), (says,))


@pytest.mark.parametrize("name", ["model-Q4.gguf", "pytorch_model.bin"])
def test_a_repository_of_another_format(hub, tmp_path, name):
    """Such files are not downloaded, so the hub is asked what there is."""
    hub.folder = tmp_path / "repository"
    hub.folder.mkdir()
    for file in (name, "config.json"):
        (hub.folder / file).write_text("{}", encoding="utf-8")
    ran = export(hub, tmp_path, REPOSITORY)
    check_refusal(ran, (f"{REPOSITORY} holds no model.safetensors, but {name}",))
    assert not hub.downloads(name)


def test_no_network(hub, tmp_path):
    hub.stop()
    ran = export(hub, tmp_path, REPOSITORY)
    check_refusal(ran, (f"{REPOSITORY} is not in the local cache and the hub cannot be reached",))


def test_a_repository_of_gguf_files_of_lfm3_audio(hub, tmp_path):
    """Of several pairs the one with the most bits is downloaded, and nothing else."""
    pytest.importorskip("gguf", reason="the export extra is not installed")
    from tests.export.lfm3_sources import write_pair

    hub.folder = write_pair(tmp_path / "repository")
    names = {"tiny-backbone.gguf": "LFM3-Audio-F16.gguf", "tiny-mmproj.gguf": "mmproj-LFM3-Audio-F16.gguf"}
    for old, new in names.items():
        (hub.folder / old).rename(hub.folder / new)
        (hub.folder / new.replace("F16", "Q4_0")).write_bytes(b"GGUF" + bytes(2000))
    ran = find(hub, tmp_path)
    assert ran.status == 0, ran.err
    assert {path.name for path in Path(json.loads(ran.out)["directory"]).iterdir()} == set(names.values())
    assert not hub.downloads("LFM3-Audio-Q4_0.gguf")


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (["a-Q8_0.gguf", "a-BF16.gguf", "mmproj-a-Q4_K.gguf"], ["a-BF16.gguf", "mmproj-a-Q4_K.gguf"]),
        (["a-Q8_0.gguf"], []),
        (["mmproj-a.gguf", "README.md"], []),
    ],
    ids=["most bits", "half", "other half"],
)
def test_which_gguf_files_are_wanted(names, pair):
    from voxrill.export.hub import gguf_pair

    assert gguf_pair("acme/LFM3-Audio-2B-GGUF", names) == pair
    assert gguf_pair("acme/LFM2-Audio-1.5B-GGUF", names) == []
