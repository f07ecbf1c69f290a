"""Bad input through the real command line: one line that names the remedy, exit status 2, nothing half-written."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import soundfile

from tests.checkpoints import make_checkpoint
from tests.command_line import Ran, check_refusal, clean_environment, contents, run_alone
from voxrill.runtime.audio import sound_writer
from voxrill.runtime.bundle.bundle import file_entry, open_bundle, verify_files
from voxrill.runtime.bundle.manifest import MANIFEST_FILE, encode_manifest, read_manifest

SPOKEN = "Hello there."  # what the tiny models answer with sound, with seed 0


@pytest.fixture
def bundle(bundles, tmp_path) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(bundles["lfm2"], tmp_path / "bundle"))


@pytest.fixture
def checkpoint(tiny_checkpoints, exporter, tmp_path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(tiny_checkpoints["lfm2"], tmp_path / "checkpoint"))


def tone(seconds=0.2):
    return (0.3 * np.sin(0.1 * np.arange(int(16000 * seconds)))).astype(np.float32)


def flip_a_byte(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# Sounds


def write_garbage(path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def write_cut_header(path):
    soundfile.write(path, tone(), 16000)
    path.write_bytes(path.read_bytes()[:20])


def write_no_samples(path):
    soundfile.write(path, np.zeros(0, np.float32), 16000)


def write_nan(path):
    samples = tone()
    samples[100] = np.nan
    soundfile.write(path, samples, 16000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: None, "There is no file sound.wav"),
        (Path.touch, "sound.wav is empty (0 bytes)"),
        (Path.mkdir, "sound.wav is a folder"),
        (write_garbage, "sound.wav is not a sound file"),
        (write_cut_header, "sound.wav is not a sound file"),
        (write_no_samples, "sound.wav holds no samples"),
        (write_nan, "sound.wav holds NaN"),
    ],
    ids=["missing", "empty", "folder", "garbage", "cut-header", "no-samples", "nan"],
)
@pytest.mark.parametrize("command", [["transcribe"], ["chat", "--output", "text", "--audio"]], ids=lambda c: c[0])
def test_unusable_sound(cli, bundles, tmp_path, command, write, says):
    write(tmp_path / "sound.wav")
    cli.refuses(*command, "sound.wav", "--bundle", bundles["lfm2"], saying=says)


def test_a_missing_sound_in_a_process_of_its_own(bundles, tmp_path):
    ran = run_alone("transcribe", "no.wav", "--bundle", bundles["lfm2"], cwd=tmp_path)
    check_refusal(ran, ("There is no file no.wav",))
    assert list(tmp_path.iterdir()) == []


def test_names_are_printed_as_they_are(cli, bundles):
    """Not as rich's markup or emoji codes."""
    cli.refuses("transcribe", "[/red]:wave:.wav", "--bundle", bundles["lfm2"], saying="[/red]:wave:.wav")
    ran = cli("transcribe", "[/red].wav", "[bold]b.wav", "--bundle", bundles["lfm2"])
    assert ran.status == 2
    assert "no file [/red].wav" in ran.err and "no file [bold]b.wav" in ran.err


def test_a_sound_too_long_for_a_fixed_shape(cli, npu_bundles, tmp_path):
    soundfile.write(tmp_path / "long.wav", tone(10), 16000)
    says = ("1001 log-mel frames", "takes 400", "--mel-frames")
    question = ("chat", "--audio", "long.wav", "--output", "text", "--bundle", npu_bundles["lfm2"])
    cli.refuses(*question, saying=says)


def test_a_question_too_long_for_the_context(cli, npu_bundles):
    command = ("chat", "--text", "hello there " * 100, "--output", "text", "--bundle", npu_bundles["lfm2"])
    cli.refuses(*command, saying=("positions", "this model holds 256"))


# Bundles


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_missing_bundle(cli, command):
    cli.refuses(command, "nowhere", saying=("no bundle at nowhere", "voxrill export"))


def test_a_name_too_long_for_the_system(cli):
    cli.refuses("inspect", "a" * 300, saying="File name too long")


def change_a_small_file(bundle):
    flip_a_byte(bundle / "tokenizer.json", 100)


def cut_a_graph(bundle):
    path = bundle / "audio_encoder.onnx"
    path.write_bytes(path.read_bytes()[:-1000])


def edit_manifest(bundle, **changes):
    path = bundle / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def drop_from_files(bundle, name):
    files = json.loads((bundle / MANIFEST_FILE).read_text())["files"]
    edit_manifest(bundle, files={key: entry for key, entry in files.items() if key != name})


def list_anew(bundle):
    """Make the manifest's sizes and hashes fit the files."""
    manifest = read_manifest(bundle)
    files = {name: file_entry(bundle / name) for name in manifest.files}
    (bundle / MANIFEST_FILE).write_bytes(encode_manifest(msgspec.structs.replace(manifest, files=files)))


def swap_a_graph(bundle):
    shutil.copy(bundle / "audio_encoder.onnx", bundle / "text_head.onnx")
    list_anew(bundle)


def spoil_a_graph(bundle):
    (bundle / "decoder.onnx").write_bytes(bytes(1000))
    list_anew(bundle)


def rename_a_token(bundle):
    path = bundle / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace("<|text_end|>", "<|the_end|>"), encoding="utf-8")
    list_anew(bundle)


def name_a_table_beyond_its_file(bundle):
    edit_manifest(bundle, audio_embeddings={"file": "audio_embeddings.f32", "offset": 4, "shape": [16392, 64]})


def name_a_file_outside(bundle):
    (bundle.parent / "evil").write_text("x")
    edit_manifest(bundle, files={"../evil": {"size": 1, "sha256": "0" * 64}} | read_raw(bundle)["files"])


def read_raw(bundle):
    return json.loads((bundle / MANIFEST_FILE).read_text())


def without(table, key):
    return {name: value for name, value in table.items() if name != key}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (change_a_small_file, ("tokenizer.json does not have the SHA-256",)),
        (cut_a_graph, ("audio_encoder.onnx has", "cut short")),
        (lambda bundle: edit_manifest(bundle, format=3), ("bundle format 3", "up to 2", "Update")),
        (lambda bundle: edit_manifest(bundle, format=1), ("bundle format 1", "older", "Export")),
        (lambda bundle: (bundle / MANIFEST_FILE).write_text("{oh"), ("not a bundle manifest",)),
        (lambda bundle: (bundle / MANIFEST_FILE).write_text("[1]"), ("not a bundle manifest",)),
        (lambda bundle: edit_manifest(bundle, flavour="tpu"), ("is not valid", "tpu", "flavour")),
        (lambda bundle: edit_manifest(bundle, surprise=1), ("is not valid", "surprise")),
        (lambda bundle: (bundle / MANIFEST_FILE).unlink(), ("no readable manifest.json",)),
        (lambda bundle: (bundle / "tokenizer.json").unlink(), ("tokenizer.json is missing",)),
        (lambda bundle: drop_from_files(bundle, "tokenizer.json"), ("does not list tokenizer.json",)),
        (lambda bundle: (bundle / "depthformer.onnx").unlink(), ("depthformer.onnx is missing",)),
        (
            lambda bundle: edit_manifest(bundle, graphs=without(read_raw(bundle)["graphs"], "decoder")),
            ("no file for the graph decoder",),
        ),
        (swap_a_graph, ("text_head.onnx is not the graph", "input hidden_state is missing", "Export")),
        (spoil_a_graph, ("decoder.onnx cannot be loaded",)),
        (rename_a_token, ("no token <|text_end|>",)),
        (name_a_table_beyond_its_file, ("reaches beyond audio_embeddings.f32",)),
        (name_a_file_outside, ("by a name that no file of a bundle may have: '../evil'",)),
    ],
    ids=[
        "wrong-hash",
        "cut-graph",
        "newer-format",
        "older-format",
        "manifest-not-json",
        "manifest-a-list",
        "bad-value",
        "unknown-field",
        "no-manifest",
        "no-tokenizer",
        "tokenizer-not-listed",
        "no-graph",
        "graph-not-named",
        "another-graph",
        "not-a-graph",
        "token-missing",
        "table-too-long",
        "file-outside",
    ],
)
def test_a_damaged_bundle(cli, bundle, damage, says):
    damage(bundle)
    cli.refuses("verify", "bundle", saying=says)
    cli.refuses("chat", "--text", "x", "--bundle", "bundle", saying=says)


# Checkpoints


def edit_config(checkpoint, edit):
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


def edit_tensors(path, edit):
    """Rewrite the header of a safetensors file; the data stays."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


BIAS = "conformer.pre_encode.out.bias"
WEIGHT = "conformer.layers.0.feed_forward1.linear1.weight"


def lose_a_tensor(checkpoint):
    edit_tensors(checkpoint / "model.safetensors", lambda header: header.update(other=header.pop(BIAS)))


def misshape_a_tensor(checkpoint):
    edit_tensors(checkpoint / "model.safetensors", lambda header: header[WEIGHT].update(shape=[64, 256]))


def cut_the_weights(checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5000])


def write_an_index(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text('{"metadata": {}}')


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (shutil.rmtree, ("no checkpoint folder at", "hub id")),
        (lambda folder: (folder / "config.json").unlink(), ("config.json is missing",)),
        (lambda folder: (folder / "config.json").write_text("{oh"), ("config.json is not readable JSON",)),
        (lambda folder: (folder / "config.json").write_text("[]"), ("config.json does not hold a JSON object",)),
        (lambda folder: edit_config(folder, lambda c: c.pop("codebooks")), ("config.json has no codebooks",)),
        (
            lambda folder: edit_config(folder, lambda c: c["encoder"].pop("d_model")),
            ("config.json has no encoder.d_model",),
        ),
        (lambda folder: edit_config(folder, lambda c: c["lfm"].pop("norm_eps")), ("config.json has no norm_eps",)),
        (lambda folder: edit_config(folder, lambda c: c.update(codebooks="eight")), ("makes no sense", "eight")),
        (lambda folder: edit_config(folder, lambda c: c.update(encoder=[])), ("config.json", "makes no sense")),
        (lambda folder: edit_config(folder, lambda c: c["encoder"].update(n_heads=0)), ("config.json", "no sense")),
        (lambda folder: edit_config(folder, lambda c: c["preprocessor"].update(n_fft=64)), ("n_fft 64",)),
        (lambda folder: edit_config(folder, lambda c: c.update(codebooks=7)), ("16392 rows, not 7 x 2049",)),
        (
            lambda folder: edit_config(folder, lambda c: c.update(architectures=["LlamaForCausalLM"])),
            ("LlamaForCausalLM", "Lfm2AudioForConditionalGeneration"),
        ),
        (
            lambda folder: edit_config(folder, lambda c: c["encoder"].update(subsampling="striding")),
            ("encoder.subsampling = 'striding'", "'dw_striding'"),
        ),
        (
            lambda folder: edit_config(folder, lambda c: c["preprocessor"].update(normalize="all")),
            ("preprocessor.normalize = 'all'", "'per_feature'"),
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), ("model.safetensors is missing",)),
        (cut_the_weights, ("model.safetensors is not a readable safetensors file", "cut short")),
        (write_an_index, ("model.safetensors.index.json holds a value",)),
        (lose_a_tensor, (f"tensor {BIAS} is missing from model.safetensors",)),
        (misshape_a_tensor, (f"tensor {WEIGHT} has shape [64, 256], not [256, 64]",)),
        (lambda folder: next(folder.glob("tokenizer-*")).unlink(), ("neither audio_detokenizer/ nor tokenizer-",)),
        (lambda folder: (folder / "tokenizer.json").unlink(), ("tokenizer.json is missing",)),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), ("tokenizer.json is not a readable tokenizer",)),
    ],
    ids=[
        "no-folder",
        "no-config",
        "config-not-json",
        "config-a-list",
        "no-key",
        "no-encoder-key",
        "no-backbone-key",
        "word-for-a-number",
        "list-for-a-table",
        "no-heads",
        "window-beyond-fft",
        "codebooks-do-not-fit",
        "unknown-family",
        "unknown-encoder",
        "unknown-features",
        "no-weights",
        "cut-weights",
        "index-without-map",
        "no-tensor",
        "misshapen-tensor",
        "no-codec",
        "no-tokenizer",
        "spoilt-tokenizer",
    ],
)
def test_a_damaged_checkpoint(cli, checkpoint, damage, says):
    damage(checkpoint)
    cli.refuses("export", checkpoint, "-o", "bundle", saying=says)


def test_a_folder_has_no_revision(cli, checkpoint):
    cli.refuses("export", checkpoint, "-o", "b", "--revision", "main", saying=("no revision main", "--revision"))


def test_an_unknown_flavour(cli, checkpoint):
    cli.refuses("export", checkpoint, "-o", "b", "--flavour", "gpu", saying=("--flavour is 'gpu'", "cpu or npu"))


@pytest.mark.parametrize("target", ["full", "file", "file/below", "."])
def test_places_that_are_no_bundle_are_left_alone(cli, tiny_checkpoints, exporter, tmp_path, target):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    cli.refuses("export", tiny_checkpoints["lfm2"], "-o", target, saying=target)


def test_the_current_folder_even_if_empty(cli, tiny_checkpoints, exporter):
    cli.refuses("export", tiny_checkpoints["lfm2"], "-o", ".", saying="Give -o a folder of its own")


def test_graphs_by_a_wrong_name(cli, tiny_checkpoints, exporter, bundle):
    says = ("no graph vocoder", "audio_encoder", "mimi_decoder")
    cli.refuses("export", tiny_checkpoints["lfm2"], "-o", "bundle", "--graphs", "decoder,vocoder", saying=says)


def test_graphs_into_nothing(cli, tiny_checkpoints, exporter):
    cli.refuses("export", tiny_checkpoints["lfm2"], "-o", "b", "--graphs", "decoder", saying="no bundle at b")


def test_graphs_of_other_weights(cli, exporter, bundle, tmp_path):
    other = make_checkpoint(tmp_path / "other", "lfm2", "tiny", seed=1)
    cli.refuses("export", other, "-o", "bundle", "--graphs", "text_head", saying="exported from other weights")


def test_graphs_of_another_flavour(cli, tiny_checkpoints, exporter, bundle):
    command = ("export", tiny_checkpoints["lfm2"], "-o", "bundle", "--graphs", "text_head", "--flavour", "npu")
    cli.refuses(*command, saying="has the cpu flavour")


# An export that fails on the way


def fails_at_the_third(error):
    """A `write_graph` that writes something twice, and then fails."""
    written = []

    def write_graph(plan, directory):
        if len(written) == 2:
            raise error
        written.append(plan.spec.name)
        (directory / f"{plan.spec.name}.onnx").write_bytes(bytes(1000))
        return []

    return write_graph


FAILURES = {
    "full-disk": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
    "ctrl-c": (KeyboardInterrupt(), "interrupted: nothing was written"),
}


@pytest.mark.parametrize(("error", "says"), FAILURES.values(), ids=FAILURES)
def test_a_failed_export_leaves_nothing(cli, tiny_checkpoints, exporter, monkeypatch, error, says):
    monkeypatch.setattr(exporter, "write_graph", fails_at_the_third(error))
    cli.refuses("export", tiny_checkpoints["lfm2"], "-o", "bundle", saying=says)


@pytest.mark.parametrize("graphs", ["", "audio_encoder,decoder,text_head"], ids=["all", "some"])
@pytest.mark.parametrize(("error", "says"), FAILURES.values(), ids=FAILURES)
def test_the_old_bundle_survives(cli, tiny_checkpoints, exporter, bundle, monkeypatch, error, says, graphs):
    monkeypatch.setattr(exporter, "write_graph", fails_at_the_third(error))
    options = ("--graphs", graphs) if graphs else ("--force",)
    cli.refuses("export", tiny_checkpoints["lfm2"], "-o", "bundle", *options, saying=says)
    verify_files(open_bundle(bundle))


def test_too_little_space_is_said_at_once(cli, tiny_checkpoints, exporter, bundle, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1_000_000))
    monkeypatch.setattr(exporter, "write_graph", None)  # not reached
    says = ("0.0 GB free", "may need")
    cli.refuses("export", tiny_checkpoints["lfm2"], "-o", "bundle", "--force", saying=says)
    verify_files(open_bundle(bundle))


# A shell starts what runs in its background deaf to SIGINT, and deafness is inherited.
LISTENING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from voxrill.__main__ import main
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_a_real_ctrl_c(tiny_checkpoints, bundle):
    before = contents(bundle)
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING, "export", tiny_checkpoints["lfm2"], "-o", bundle, "--force"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )
    deadline = time.monotonic() + 240
    while not list(bundle.parent.glob(".bundle.*.partial")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    check_refusal(Ran(process.returncode, out, err.decode()), ("interrupted: nothing was written",))
    assert contents(bundle.parent) == {"bundle": "folder", **{f"bundle/{name}": sha for name, sha in before.items()}}
    verify_files(open_bundle(bundle))


# Speaking and chatting


@pytest.mark.parametrize("text", ["", "  \n"])
def test_nothing_to_say(cli, bundles, text):
    cli.refuses("speak", text, "-o", "a.wav", "--bundle", bundles["lfm2"], saying="the text is empty")


def test_nothing_to_say_from_stdin(cli, bundles, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    cli.refuses("speak", "-", "-o", "a.wav", "--bundle", bundles["lfm2"], saying="the text is empty")


def test_stdin_that_is_not_text(cli, bundles, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8"))
    cli.refuses("speak", "-", "-o", "a.wav", "--bundle", bundles["lfm2"], saying=("stdin", "UTF-8"))


@pytest.mark.parametrize("command", [["speak", "caf\udce9", "-o", "a.wav"], ["chat", "--text", "caf\udce9"]])
def test_an_argument_that_is_not_text(cli, bundles, command):
    """Bytes that are not UTF-8 reach Python as lone surrogates."""
    cli.refuses(*command, "--bundle", bundles["lfm2"], saying="not UTF-8")


def test_an_unknown_voice(cli, bundles):
    says = ("no voice 'Batman'", "US male, US female, UK male, UK female")
    cli.refuses("speak", "Hi", "-o", "a.wav", "--voice", "Batman", "--bundle", bundles["lfm2.5"], saying=says)


def test_nowhere_to_put_the_sound(cli, bundles):
    cli.refuses("speak", "Hi", "--bundle", bundles["lfm2"], saying=("-o OUT.wav", "-o -"))


@pytest.mark.parametrize("out", ["no/a.wav", ".", "file/a.wav", "/"])
def test_a_place_the_sound_cannot_be_put(cli, bundles, tmp_path, out):
    (tmp_path / "file").write_text("x")
    cli.refuses("speak", SPOKEN, "-o", out, "--bundle", bundles["lfm2"], saying=out)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(cli, bundles, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    cli.refuses("speak", SPOKEN, "-o", "closed/a.wav", "--bundle", bundles["lfm2"], saying="Permission denied")


@pytest.mark.parametrize("command", ["speak", "chat"])
def test_a_disk_that_fills_while_sound_is_written(cli, bundles, tmp_path, monkeypatch, command):
    class FullDisk(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > 5000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    (tmp_path / "a.wav").write_text("the old one")
    monkeypatch.setattr(sound_writer, "open", lambda path, _mode: FullDisk(path, "x"), raising=False)
    question = [SPOKEN] if command == "speak" else ["--text", SPOKEN, "--output", "audio"]
    options = ("-o", "a.wav", "--force", "--seed", "0", "--max-new-tokens", "60", "--bundle", bundles["lfm2"])
    cli.refuses(command, *question, *options, saying=("a.wav", "No space left on device"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "command", [["speak", SPOKEN, "-o", "-"], ["chat", "--text", SPOKEN, "--output", "text"]], ids=lambda c: c[0]
)
def test_a_full_disk_behind_stdout(bundles, tmp_path, command):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "voxrill", *command, "--seed", "0", "--bundle", bundles["lfm2"]],
            stdout=full,
            stderr=subprocess.PIPE,
            env=clean_environment(),
            cwd=tmp_path,
            timeout=120,
        )
    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1] == "voxrill: cannot read or write: No space left on device."
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr


def test_no_question(cli, bundles):
    cli.refuses("chat", "--bundle", bundles["lfm2"], saying=("no question", "a sound file", "--text TEXT"))


def test_an_unknown_output(cli, bundles):
    says = ("--output is 'video'", "text, audio or both")
    cli.refuses("chat", "--text", "x", "--output", "video", "--bundle", bundles["lfm2"], saying=says)


@pytest.mark.parametrize(
    "command",
    [["speak", "Hi", "--json"], ["chat", "--text", "Hi"], ["chat", "--text", "Hi", "--output", "audio", "--json"]],
)
def test_text_and_raw_sound_cannot_share_stdout(cli, bundles, command):
    cli.refuses(*command, "-o", "-", "--bundle", bundles["lfm2"], saying="cannot both go to stdout")


def test_packing_into_a_folder(cli, bundle):
    cli.refuses("pack", "bundle", "-o", ".", saying=". is a folder")
