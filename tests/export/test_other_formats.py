"""What is given as a checkpoint and is none is recognised: formats, adapters, the hub's cache, weights that are NaN."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import clean_environment
from voxrill.runtime.errors import CheckpointError

HUB_ID, COMMIT = "LiquidAI/LFM2.5-Audio-1.5B", "0123456789abcdef0123456789abcdef01234567"
TENSOR = "lfm.embedding_norm.weight"


@pytest.fixture
def checkpoint(tiny_checkpoints, exporter, tmp_path):
    """A checkpoint to damage, in a place like the hub's cache."""
    folder = tmp_path / f"models--{HUB_ID.replace('/', '--')}" / "snapshots" / COMMIT
    return Path(shutil.copytree(tiny_checkpoints["lfm2"], folder))


@pytest.fixture
def opened(exporter):
    """Opens a checkpoint folder."""
    from voxrill.export.checkpoint import open_checkpoint

    return open_checkpoint


def write_adapter(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "acme/base"}), encoding="utf-8")
    (folder / "adapter_model.bin").write_bytes(b"x")


def write_bundle(folder):
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    (folder / "decoder.onnx").touch()


@pytest.mark.parametrize(
    ("write", "saying"),
    [
        (lambda folder: (folder / "lfm-Q4_0.GGUF").touch(), ("lfm-Q4_0.GGUF: a GGUF file of llama.cpp", "such as Liq")),
        (
            write_adapter,
            (
                "adapter_config.json: part of a LoRA adapter",
                "Give acme/base as the checkpoint, and the adapter's folder with --lora",
            ),
        ),
        (lambda folder: (folder / "adapter_config.json").touch(), ("LoRA", "Give its base model as the checkpoint")),
        (lambda folder: (folder / "pytorch_model-00001-of-2.bin").touch(), ("a PyTorch pickle", "safe_serialization")),
        (lambda folder: (folder / "decoder.onnx").touch(), ("decoder.onnx: an ONNX graph",)),
        (write_bundle, ("weights is a bundle, exported already", "voxrill quantize weights -o OUT")),
    ],
    ids=["gguf", "lora", "lora-unreadable", "bin", "onnx", "bundle"],
)
@pytest.mark.parametrize("config", [True, False], ids=["config", "no-config"])
def test_a_folder_of_another_format(cli, exporter, tmp_path, write, saying, config):
    folder = tmp_path / "weights"
    folder.mkdir()
    write(folder)
    if config:
        (folder / "config.json").write_text("{}", encoding="utf-8")
    cli.refuses("export", "weights", "-o", "bundle", saying=saying)


@pytest.mark.parametrize(
    ("name", "content", "saying"),
    [
        ("model", b"GGUF\3\0\0\0", ("model is a GGUF file",)),
        ("weights/lfm.gguf", b"", ("weights/lfm.gguf is a GGUF file",)),
        ("pytorch_model.bin", b"", ("pytorch_model.bin is a PyTorch pickle",)),
        ("weights/model.safetensors", b"", ("model.safetensors is a file", "Give the folder that it is in: weights")),
    ],
)
def test_a_file_is_no_folder(cli, exporter, tmp_path, name, content, saying):
    """Also where its path looks like a hub id."""
    (tmp_path / "weights").mkdir()
    (tmp_path / name).write_bytes(content)
    cli.refuses("export", name, "-o", "bundle", saying=saying)


@pytest.mark.parametrize("key", ["quantization_config", "quantization"])
def test_weights_that_are_quantised_already(cli, checkpoint, key):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: {"bits": 4}}), encoding="utf-8")
    cli.refuses("export", checkpoint, "-o", "bundle", saying=(key, "quantised already"))


def test_formats_beside_whole_weights_do_not_matter(checkpoint, opened):
    write_adapter(checkpoint)
    (checkpoint / "training_args.bin").touch()
    assert TENSOR in opened(checkpoint).weights


def test_a_stale_index_beside_the_whole_file_does_not_matter(checkpoint, opened):
    index = {"weight_map": {TENSOR: "model-00001-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (file,) = opened(checkpoint).stored.files
    assert file.name == "model.safetensors"


def test_a_shard_that_is_missing_is_named(checkpoint, opened):
    index = {"weight_map": {TENSOR: "model-00001-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002\.safetensors is missing"):
        opened(checkpoint).weights  # noqa: B018


@pytest.mark.parametrize(
    ("value", "dtype", "saying"),
    [
        (np.nan, np.float32, ("1 NaN and 0 infinite", "diverged")),
        (np.inf, np.float32, ("0 NaN and 1 infinite", "diverged")),
        (-np.inf, np.float16, ("0 NaN and 1 infinite", "Float16 has no numbers above 65504")),
        (np.nan, np.float16, ("1 NaN", "diverged")),
    ],
)
def test_weights_that_are_no_numbers_name_the_tensor_and_the_cause(cli, checkpoint, value, dtype, saying):
    from safetensors.numpy import load_file, save_file

    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    tensors[TENSOR] = tensors[TENSOR].astype(dtype)
    tensors[TENSOR][3] = value
    save_file(tensors, path)
    cli.refuses("export", checkpoint, "-o", "bundle", saying=(f"tensor {TENSOR} holds", *saying))


def test_a_snapshot_of_the_hub_is_named_by_its_model(checkpoint, opened):
    found = opened(checkpoint)
    assert (found.name, found.revision) == (HUB_ID, COMMIT)
    link = checkpoint.parents[3] / "link"
    link.symlink_to(checkpoint)
    assert opened(link).name == HUB_ID


def test_other_folders_are_named_as_before(checkpoint, opened, tmp_path):
    plain = Path(shutil.copytree(checkpoint, tmp_path / "mine"))
    assert (opened(plain).name, opened(plain).revision) == ("mine", "local")


def test_a_repository_in_the_cache_of_the_hub_names_its_snapshot(cli, checkpoint):
    cli.refuses("export", checkpoint.parents[1], "-o", "bundle", saying=("a folder of the hub's cache", COMMIT))


def test_a_config_with_a_byte_order_mark(checkpoint, opened):
    path = checkpoint / "config.json"
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert opened(checkpoint).value("codebooks") == 8


def test_an_export_does_not_need_the_module_resource(exporter, tmp_path):
    """Windows has none; the report then says nothing of memory."""
    script = (
        "import sys; sys.modules['resource'] = None; from voxrill.export import bundle; print(bundle._peak_memory())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, env=clean_environment()
    )
    assert done.stdout == "{}\n", done.stderr
    if sys.platform != "win32":
        assert exporter._peak_memory()["peak_memory_mb"] > 10
