"""Conversions for the package transformers: their names and configs mean the published checkpoint.

The renaming below is written from the other side, published to theirs, as the conversion goes. Where the installed
transformers has a class of the conversion, its own names are compared.
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.checkpoints import MODEL_FILE
from tests.export.test_fine_tunes import factors, stored_tensors, write_adapter, write_tensors
from voxrill.runtime.errors import CheckpointError

THEIRS = {
    "audio_embedding.embedding.": "audio_embedding.",
    ".pre_encode.conv.": ".subsampling.layers.",
    ".pre_encode.out.": ".subsampling.linear.",
    ".linear_q.": ".q_proj.",
    ".linear_k.": ".k_proj.",
    ".linear_v.": ".v_proj.",
    ".linear_out.": ".o_proj.",
    ".linear_pos.": ".relative_k_proj.",
    ".pos_bias_": ".bias_",
    ".batch_norm.": ".norm.",
    "audio_adapter.model.0.": "audio_adapter_norm.",
    "audio_adapter.model.1.": "audio_adapter_linear_1.",
    "audio_adapter.model.3.": "audio_adapter_linear_2.",
    ".operator.out_proj.": ".operator.o_proj.",
    ".bounded_attention.q_layernorm.": ".q_norm.",
    ".bounded_attention.k_layernorm.": ".k_norm.",
}
DROPPED = ("codebook_offsets", "audio_loss_weights", "audio_embedding.embedding_norm.weight")
DROPPED += ("audio_embedding.to_logits.weight",)
DEPTH_DIM, DEPTH_KV = 128, 32
ENCODER = {
    "model_type": "parakeet_encoder",
    "num_mel_bins": 128,
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "subsampling_factor": 8,
    "subsampling_conv_channels": 16,
    "conv_kernel_size": 9,
    "scale_input": True,
}
FEATURES = {
    "feature_size": 128,
    "sampling_rate": 16000,
    "hop_length": 160,
    "n_fft": 512,
    "win_length": 400,
    "preemphasis": 0.97,
    "padding_value": 0.0,
}


def their_name(name: str) -> str:
    for published, theirs in THEIRS.items():
        name = name.replace(published, theirs)
    return f"model.{name}"


def converted(tensors):
    """The tensors of a checkpoint as the conversion saves them: renamed, unpacked, tied ones once."""
    made = {}
    for name, values in tensors.items():
        if name in DROPPED or ".to_logits." in name:
            continue
        if ".qkv_proj." in name:
            parts = values.split((DEPTH_DIM, DEPTH_KV, DEPTH_KV))
            names = (their_name(name).replace("qkv_proj", part) for part in ("q_proj", "k_proj", "v_proj"))
            made |= {part: rows.contiguous() for part, rows in zip(names, parts, strict=True)}
        else:
            made[their_name(name)] = values
    return made


def write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def published(tiny_checkpoints, exporter) -> Path:
    return tiny_checkpoints["lfm2.5"]


@pytest.fixture
def conversion(published, tmp_path) -> Path:
    """The conversion of the published checkpoint; its codec has the same names."""
    folder = Path(shutil.copytree(published, tmp_path / "conversion"))
    write_tensors(folder / MODEL_FILE, converted(stored_tensors(published)))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["preprocessor"]
    depthformer = config["depthformer"] | {"num_attention_heads": 32, "num_key_value_heads": 8, "norm_eps": 1e-5}
    config |= {"model_type": "lfm2_audio", "encoder": dict(ENCODER), "depthformer": depthformer}
    write_json(folder / "config.json", config)
    write_json(folder / "processor_config.json", {"feature_extractor": FEATURES, "processor_class": "P"})
    return folder


@pytest.fixture
def opened(exporter):
    from voxrill.export.checkpoint import open_checkpoint

    return open_checkpoint


def used(tensors):
    """The tensors that some graph or table needs."""
    return {name: values for name, values in tensors.items() if name not in DROPPED}


def assert_same(weights, wanted) -> None:
    import torch

    for name, values in wanted.items():
        torch.testing.assert_close(weights.read(name), values, msg=name)
        assert weights.shape(name) == tuple(values.shape)


def test_a_conversion_is_the_published_checkpoint(opened, published, conversion, exporter):
    from voxrill.export.graphs import read_model_spec

    ours, theirs = opened(published), opened(conversion)
    assert read_model_spec(theirs) == read_model_spec(ours)
    assert exporter.detect_family(theirs) == exporter.detect_family(ours)
    assert_same(theirs.weights, used(stored_tensors(published)))


def test_features_may_stand_in_a_file_of_their_own(opened, published, conversion):
    (conversion / "processor_config.json").unlink()
    write_json(conversion / "preprocessor_config.json", FEATURES)
    assert opened(conversion).value("preprocessor", "window_size") == 0.025


def test_the_text_table_may_be_saved_as_the_head(opened, published, conversion):
    tensors = converted(stored_tensors(published))
    tensors["lm_head.weight"] = tensors.pop("model.lfm.embed_tokens.weight")
    write_tensors(conversion / MODEL_FILE, tensors)
    assert_same(opened(conversion).weights, used(stored_tensors(published)))


def test_an_earlier_state_of_the_conversion_packed_the_projections(opened, published, conversion):
    tensors = {
        name: values for name, values in converted(stored_tensors(published)).items() if ".operator." not in name
    }
    tensors |= {f"model.{name}": t for name, t in stored_tensors(published).items() if ".operator." in name}
    write_tensors(conversion / MODEL_FILE, tensors)
    assert_same(opened(conversion).weights, used(stored_tensors(published)))


def test_a_fine_tune_of_the_conversion_is_laid_over_the_published_base(opened, published, tmp_path):
    from voxrill.export.fine_tune import fine_tuned

    tuned = {
        name: values + 1 if values.is_floating_point() else values for name, values in stored_tensors(published).items()
    }
    file = write_tensors(tmp_path / "tuned.safetensors", converted(tuned))
    checkpoint, _ = fine_tuned(opened(published), file)
    assert_same(checkpoint.weights, used(tuned))


@pytest.mark.parametrize("part", range(3), ids=["query", "key", "value"])
def test_an_adapter_of_one_projection_changes_its_rows(opened, published, tmp_path, part):
    from voxrill.export.fine_tune import fine_tuned

    rows = [slice(0, 128), slice(128, 160), slice(160, 192)][part]
    module = f"model.depthformer.layers.1.operator.{'qkv'[part]}_proj"
    made = factors(module, width=128)
    made[f"{module}.lora_B.weight"] = made[f"{module}.lora_B.weight"][: rows.stop - rows.start].clone()
    down, up = made.values()
    checkpoint, _ = fine_tuned(opened(published), lora=write_adapter(tmp_path / "adapter", made))
    wanted = stored_tensors(published)
    wanted["depthformer.layers.1.operator.qkv_proj.weight"][rows] += 4 / 2 * up @ down
    assert_same(checkpoint.weights, used(wanted))


@pytest.mark.parametrize(
    ("where", "change", "saying"),
    [
        ("encoder", {"hidden_act": "relu"}, "encoder.hidden_act = 'relu'; only 'silu' is supported"),
        ("encoder", {"num_mel_bins": None}, "config.json holds a value that makes no sense"),
        ("depthformer", {"rope_theta": 1e4}, "depthformer.rope_theta = 10000.0; only 1000000.0 is supported"),
        ("depthformer", {"rope_parameters": {"rope_theta": 1e4}}, "depthformer.rope_theta = 10000.0; only"),
    ],
)
def test_options_that_the_exporter_does_not_compute(opened, conversion, exporter, where, change, saying):
    config = json.loads((conversion / "config.json").read_text(encoding="utf-8"))
    config[where] |= change
    write_json(conversion / "config.json", config)
    with pytest.raises(CheckpointError, match=saying):
        exporter.export_bundle(opened(conversion), conversion.parent / "out")


def test_a_conversion_without_its_processor(opened, conversion):
    (conversion / "processor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no processor_config.json with a feature_extractor"):
        opened(conversion)


def test_a_projection_without_the_others(opened, published, conversion):
    tensors = converted(stored_tensors(published))
    del tensors["model.depthformer.layers.0.operator.k_proj.weight"]
    write_tensors(conversion / MODEL_FILE, tensors)
    with pytest.raises(CheckpointError, match=r"layers.0.operator.qkv_proj.weight is stored in 3 parts, but"):
        opened(conversion).weights  # noqa: B018


# The installed transformers' own names


@pytest.mark.filterwarnings("ignore")
def test_parakeet_of_transformers_has_these_names(opened, published):
    transformers = pytest.importorskip("transformers", reason="the export extra is not installed")
    if not hasattr(transformers, "ParakeetEncoder"):
        pytest.skip("this transformers has no ParakeetEncoder")
    import torch

    from voxrill.export.audio_encoder import AudioEncoderModule, EncoderConfig

    encoder = transformers.ParakeetEncoder(transformers.ParakeetEncoderConfig(**ENCODER)).eval()
    renamed = converted(stored_tensors(published))
    state = {name.removeprefix("model.conformer."): t for name, t in renamed.items() if ".conformer." in name}
    encoder.load_state_dict(state, strict=True)
    ours = AudioEncoderModule(EncoderConfig.read(opened(published)))
    opened(published).weights.load(ours)
    mel = torch.randn(1, 83, 128, generator=torch.Generator().manual_seed(0))
    heard, _ = ours.conformer(mel, torch.tensor([83]))
    theirs = encoder(mel, attention_mask=torch.ones(1, 83, dtype=torch.long)).last_hidden_state
    torch.testing.assert_close(heard, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_lfm2_of_transformers_has_these_names(published):
    transformers = pytest.importorskip("transformers", reason="the export extra is not installed")
    config = json.loads((published / "config.json").read_text(encoding="utf-8"))["lfm"]
    model = transformers.Lfm2Model(transformers.Lfm2Config(**config))
    names = {name.removeprefix("lfm.") for name in stored_tensors(published) if name.startswith("lfm.")}
    assert set(model.state_dict()) == names


@pytest.mark.filterwarnings("ignore")
def test_the_class_of_transformers_saves_what_is_read(opened, published, conversion):
    transformers = pytest.importorskip("transformers", reason="the export extra is not installed")
    if not hasattr(transformers, "Lfm2AudioForConditionalGeneration"):
        pytest.skip("this transformers has no Lfm2AudioForConditionalGeneration: its pull request 48249 was not merged")
    config = transformers.Lfm2AudioConfig.from_pretrained(conversion)
    transformers.Lfm2AudioForConditionalGeneration(config).save_pretrained(conversion)
    weights = opened(conversion).weights
    wanted = used(stored_tensors(published))
    assert {name: weights.shape(name) for name in wanted} == {name: tuple(t.shape) for name, t in wanted.items()}
