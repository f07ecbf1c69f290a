"""Conversions for the package transformers: their names and configs mean the published checkpoint.

Where the installed transformers has a class of the conversion, its own names are compared.
"""

import json
from pathlib import Path

import pytest

from tests.checkpoints import MODEL_FILE
from tests.export.saved import (
    DROPPED,
    ENCODER,
    FEATURES,
    converted,
    factors,
    stored_tensors,
    write_adapter,
    write_conversion,
    write_json,
    write_tensors,
)
from voxrill.runtime.errors import CheckpointError


@pytest.fixture
def published(tiny_checkpoints, exporter) -> Path:
    return tiny_checkpoints["lfm2.5"]


@pytest.fixture
def conversion(published, tmp_path) -> Path:
    return write_conversion(published, tmp_path / "conversion")


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
