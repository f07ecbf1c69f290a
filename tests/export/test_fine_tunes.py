"""Fine-tuned weights and LoRA adapters laid over a base, as accelerate and peft save them, and what cannot be one."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import DETOKENIZER_FILE, MODEL_FILE, make_checkpoint
from tests.export.saved import factors, stored_tensors, write_adapter, write_conversion, write_tensors
from voxrill.runtime.bundle.manifest import read_manifest
from voxrill.runtime.errors import CheckpointError, UsageError

TIED = "depth_embeddings.0.to_logits.weight"
ADAPTED = "lfm.layers.2.self_attn.q_proj"


@pytest.fixture(scope="module")
def tuned_folder(tiny_checkpoints, exporter) -> Path:
    """The model that the fine-tune is: every way of giving it must give these weights."""
    return tiny_checkpoints["lfm2.5"]


@pytest.fixture(scope="module")
def base_folder(tuned_folder, made_once) -> Path:
    """Another model of the same sizes, with the codec of the fine-tune."""

    def make(folder: Path) -> None:
        make_checkpoint(folder, "lfm2.5", "tiny", seed=1)
        shutil.copy(tuned_folder / DETOKENIZER_FILE, folder / DETOKENIZER_FILE)

    return made_once("fine-tune-base", make)


@pytest.fixture
def opened(exporter):
    """`opened(base, weights, lora)`: the checkpoint with the changes, and what is said of them."""
    from voxrill.export.checkpoint import open_checkpoint
    from voxrill.export.fine_tune import fine_tuned

    return lambda base, weights=None, lora=None: fine_tuned(open_checkpoint(base), weights, lora)


@pytest.fixture
def whole_model(exporter):
    """`whole_model(folder)`: its weights as one model, with the reference's names and ties."""
    from tests.export.whole_model import WholeModel

    return WholeModel


def assert_same(checkpoint, wanted: dict[str, object], tolerance: float = 0.0) -> None:
    """Every tensor that a checkpoint reads is the wanted one."""
    import torch

    for name, values in wanted.items():
        torch.testing.assert_close(checkpoint.weights.read(name), values, rtol=tolerance, atol=tolerance, msg=name)


# What trainers save


@pytest.mark.parametrize("shard", ["10GB", "500KB"], ids=["whole", "sharded"])
def test_what_accelerate_saves(opened, whole_model, base_folder, tuned_folder, tmp_path, shard):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    model = whole_model(tuned_folder)
    accelerate.Accelerator(cpu=True).save_model(model, tmp_path / "tuned", max_shard_size=shard)
    checkpoint, (said,) = opened(base_folder, tmp_path / "tuned")
    assert TIED not in checkpoint.changes[0].stored  # the trap: only one name of a tied pair is saved
    assert (len(list((tmp_path / "tuned").glob("*.safetensors"))) > 1) == (shard == "500KB")
    assert_same(checkpoint, model.state_dict())
    assert said.startswith("tuned replaces") and "in float32" in said


def test_what_accelerate_saves_on_the_way(opened, whole_model, base_folder, tuned_folder, tmp_path):
    """Checkpoints in between, which Liquid's trainer writes with save_state: an optimizer lies beside the weights."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    import torch

    accelerator = accelerate.Accelerator(cpu=True)
    model = whole_model(tuned_folder).requires_grad_(True)
    model, _ = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    accelerator.save_state(tmp_path / "checkpoint_0")
    checkpoint, _ = opened(base_folder, tmp_path / "checkpoint_0")
    assert TIED not in checkpoint.changes[0].stored
    assert_same(checkpoint, model.state_dict())


@pytest.mark.parametrize("kept", ["embedding", "to_logits"])
@pytest.mark.parametrize("place", ["overlay", "base"])
def test_a_tied_pair_is_found_by_either_name(opened, base_folder, tuned_folder, tmp_path, kept, place):
    dropped = {"embedding": "to_logits", "to_logits": "embedding"}[kept]
    tensors = stored_tensors(tuned_folder)
    saved = {name: values for name, values in tensors.items() if f"s.0.{dropped}." not in name}
    if place == "base":
        folder = Path(shutil.copytree(tuned_folder, tmp_path / "base"))
        write_tensors(folder / MODEL_FILE, saved)
        checkpoint, _ = opened(folder)
    else:
        checkpoint, _ = opened(base_folder, write_tensors(tmp_path / "tuned.safetensors", saved))
    assert f"depth_embeddings.0.{dropped}.weight" not in saved
    assert_same(checkpoint, tensors)


def test_tied_names_with_different_values_are_refused(opened, base_folder, tmp_path):
    tensors = stored_tensors(base_folder)
    tensors[TIED] = tensors[TIED] + 1
    checkpoint, _ = opened(base_folder, write_tensors(tmp_path / "tuned.safetensors", tensors))
    with pytest.raises(CheckpointError, match=rf"{TIED} and \S+embedding.weight are two names of one tensor"):
        checkpoint.weights.read(TIED)


def test_a_part_of_the_weights_replaces_that_part(opened, base_folder, tuned_folder, tmp_path):
    tensors = stored_tensors(tuned_folder)
    part = {name: values for name, values in tensors.items() if name.startswith("audio_adapter.")}
    checkpoint, _ = opened(base_folder, write_tensors(tmp_path / "tuned.safetensors", part))
    assert_same(checkpoint, stored_tensors(base_folder) | part)


def test_another_dtype_is_cast_and_said(opened, base_folder, tuned_folder, tmp_path):
    import torch

    tensors = {name: t.bfloat16() if t.is_floating_point() else t for name, t in stored_tensors(tuned_folder).items()}
    checkpoint, (said,) = opened(base_folder, write_tensors(tmp_path / "tuned.safetensors", tensors))
    assert checkpoint.weights.read(TIED).dtype == torch.float32
    assert_same(checkpoint, {name: values.float() for name, values in tensors.items() if values.is_floating_point()})
    assert "in bfloat16" in said and "the base has float32" in said and "cast to float32" in said


# What peft saves


ADAPTERS = {
    "plain": {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "w1", "linear_q", "qkv_proj", "depth_linear"]},
    "rslora": {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": ["v_proj", "in_proj"]},
    "patterns": {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": ["q_proj", "k_proj", "w2"],
        "rank_pattern": {"k_proj": 2, r"layers\.4\.self_attn\.q_proj": 3},
        "alpha_pattern": {"lfm.layers.2.self_attn.q_proj": 9, "depthformer.layers.1.feed_forward.w2": 1},
    },
    "fan-in": {"r": 2, "lora_alpha": 4, "fan_in_fan_out": True, "target_modules": ["out_proj"]},
    "embeddings": {"r": 2, "lora_alpha": 4, "target_modules": ["embed_tokens", "depth_embeddings.3.embedding"]},
    "convolutions": {"r": 2, "lora_alpha": 4, "target_modules": ["pointwise_conv1", "pre_encode.conv.0"]},
    "whole-modules": {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "modules_to_save": ["depth_linear"]},
    "biases": {"r": 2, "lora_alpha": 4, "target_modules": ["linear_q"], "bias": "all"},
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # peft's, of tied modules and of fan_in_fan_out
@pytest.mark.parametrize("kind", ADAPTERS)
def test_what_peft_saves_merges_as_peft_merges_it(opened, whole_model, base_folder, tmp_path, kind):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    import torch

    torch.manual_seed(0)
    adapted = peft.get_peft_model(whole_model(base_folder), peft.LoraConfig(**ADAPTERS[kind]))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:  # as if trained: fresh factors change nothing
                parameter += torch.randn_like(parameter) / 8
    adapted.save_pretrained(tmp_path / "adapter")
    merged = adapted.merge_and_unload().state_dict()
    checkpoint, _ = opened(base_folder, lora=tmp_path / "adapter")
    before = opened(base_folder)[0].weights
    assert any(not torch.equal(before.read(name), values) for name, values in merged.items())
    assert_same(checkpoint, merged, 1e-6)


def test_an_adapter_is_merged_into_the_overlaid_weights(opened, base_folder, tuned_folder, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", made := factors(ADAPTED))
    checkpoint, _ = opened(base_folder, tuned_folder, adapter)
    tensors = stored_tensors(tuned_folder)
    down, up = made.values()
    tensors[f"{ADAPTED}.weight"] += 4 / 2 * up @ down
    assert_same(checkpoint, tensors, 1e-6)


# The whole way


def test_a_fine_tune_answers_as_the_plainly_saved_checkpoint(
    cli, exporter, base_folder, tuned_folder, models, tmp_path
):
    """The base is a conversion for transformers with a strange backbone. The overlay has the right backbone, but for
    what the adapter adds. So all three are needed for the plainly saved model's answers."""
    import voxrill

    tensors, strange = stored_tensors(tuned_folder), stored_tensors(base_folder)
    mixed = Path(shutil.copytree(tuned_folder, tmp_path / "mixed"))
    write_tensors(
        mixed / MODEL_FILE, {name: (strange if name.startswith("lfm.") else tensors)[name] for name in tensors}
    )
    base = write_conversion(mixed, tmp_path / "conversion")
    made = factors(ADAPTED)
    down, up = made.values()
    backbone = {name: values for name, values in tensors.items() if name.startswith("lfm.")}
    backbone[f"{ADAPTED}.weight"] = backbone[f"{ADAPTED}.weight"] - 4 / 2 * up @ down
    write_tensors(tmp_path / "tuned" / MODEL_FILE, backbone)
    write_adapter(tmp_path / "adapter", made)
    out = tmp_path / "bundle"
    ran = cli("export", base, "-o", out, "--weights", tmp_path / "tuned", "--lora", tmp_path / "adapter")
    assert "tuned replaces" in ran.err and "adapter adapts 1 modules" in ran.err
    assert "of the family lfm2.5-audio" in ran.err
    overlays = read_manifest(out).source.overlays
    assert [(overlay.kind, overlay.name) for overlay in overlays] == [("weights", "tuned"), ("lora", "adapter")]
    shown = cli("inspect", out).out
    assert "weights laid over" in shown and "lora laid over" in shown and overlays[1].sha256[:16] in shown
    tuned = voxrill.load(out, threads=1)
    plain = models["lfm2.5"]
    for question in ("the thing", "one"):
        answers = [list(model.chat(text=question, seed=0, max_new_tokens=24)) for model in (tuned, plain)]
        ours, theirs = ([event.samples for event in a if isinstance(event, voxrill.AudioEvent)] for a in answers)
        assert [type(event) for event in answers[0]] == [type(event) for event in answers[1]]
        assert ours
        np.testing.assert_allclose(np.concatenate(ours), np.concatenate(theirs), atol=1e-3)


def test_graphs_of_a_bundle_are_not_mixed_with_a_fine_tune_s(opened, exporter, bundles, tuned_folder, tmp_path):
    bundle = Path(shutil.copytree(bundles["lfm2.5"], tmp_path / "bundle"))
    checkpoint, _ = opened(tuned_folder, lora=write_adapter(tmp_path / "adapter", factors(ADAPTED)))
    with pytest.raises(UsageError, match="was exported from other weights"):
        exporter.export_bundle(checkpoint, bundle, exporter.ExportOptions(graphs=("text_head",)))


# What is refused


def without(tensors, *names):
    return {name: values for name, values in tensors.items() if name not in names}


def strange(tensors):
    extra = {f"lfm.layers.{70 + i}.ffn_norm.weight": tensors["lfm.layers.0.ffn_norm.weight"].clone() for i in range(23)}
    return tensors | extra


def narrow(tensors):
    return tensors | {"depth_linear.bias": tensors["depth_linear.bias"][:8].clone()}


def quantised(tensors):
    return tensors | {"depth_linear.weight": tensors["depth_linear.weight"].char()}


@pytest.mark.parametrize(
    ("change", "saying"),
    [
        (
            strange,
            r"has 23 tensors that the base lacks: lfm.layers.70.ffn_norm.weight, .*.89.ffn_norm.weight and 3 more",
        ),
        (narrow, r"tensor depth_linear.bias has shape \[8\] in \S+, and \[1024\] in the base"),
        (quantised, r"tensor depth_linear.weight is I8 in \S+, and float32 in the base"),
        (lambda tensors: {}, r"holds no tensors"),
    ],
    ids=["strange", "narrow", "quantised", "empty"],
)
def test_weights_that_do_not_fit(opened, base_folder, tmp_path, change, saying):
    file = write_tensors(tmp_path / "tuned.safetensors", change(stored_tensors(base_folder)))
    with pytest.raises(CheckpointError, match=saying):
        opened(base_folder, file)


def test_training_buffers_that_the_base_lacks_are_no_fault(opened, base_folder, tuned_folder, tmp_path):
    folder = Path(shutil.copytree(base_folder, tmp_path / "base"))
    write_tensors(folder / MODEL_FILE, without(stored_tensors(folder), "codebook_offsets", "audio_loss_weights"))
    checkpoint, _ = opened(folder, tuned_folder)
    assert_same(checkpoint, without(stored_tensors(tuned_folder), "codebook_offsets", "audio_loss_weights"))


def test_places_that_are_no_weights(opened, base_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    adapter = write_adapter(tmp_path / "adapter", factors(ADAPTED))
    (pickle := tmp_path / "model.bin").touch()
    for place, saying in {
        tmp_path / "nowhere": "there is no file or folder",
        tmp_path / "empty": "has no model.safetensors",
        adapter: "is a LoRA adapter. Merge it with: --lora",
        adapter / "adapter_model.safetensors": "is a LoRA adapter. Merge it by giving its folder with --lora",
        base_folder / "config.json": "not a readable safetensors file",
        pickle: "model.bin: a PyTorch pickle, which can run any code",
    }.items():
        with pytest.raises(CheckpointError, match=saying):
            opened(base_folder, place)


BAD_ADAPTERS = {
    "dora": (dict(factors=ADAPTED, use_dora=True), "is DoRA, not plain LoRA. Merge it with peft"),
    "layers": (dict(factors=ADAPTED, layer_replication=[[0, 2]]), "is layer_replication, not plain LoRA"),
    "other-method": (dict(factors=ADAPTED, peft_type="VERA"), "is VERA, not LoRA"),
    "changed-base": (dict(factors=ADAPTED, init_lora_weights="pissa_niter_4"), "init_lora_weights 'pissa_niter_4'"),
    "no-module": (
        dict(factors="lfm.layers.77.self_attn.q_proj"),
        "adapts 1 modules that the base lacks: lfm.layers.77",
    ),
    "rank": (dict(factors=ADAPTED, r=3), "have ranks 2 and 2, and adapter_config.json says 3"),
    "shape": (dict(factors="depth_linear"), r"depth_linear has shape \[64, 64\] in \S+, and \[1024, 64\] in the base"),
    "r": (dict(factors=ADAPTED, r="many"), "is not an adapter's config"),
}


@pytest.mark.parametrize("kind", BAD_ADAPTERS)
def test_adapters_that_cannot_be_merged(opened, base_folder, tmp_path, kind):
    config, saying = BAD_ADAPTERS[kind]
    module = config["factors"]
    adapter = write_adapter(tmp_path / "adapter", factors(module), **without(config, "factors"))
    with pytest.raises(CheckpointError, match=saying):
        opened(base_folder, lora=adapter)


def test_adapters_that_are_not_whole(opened, base_folder, tmp_path):
    import torch

    made = factors(ADAPTED)
    half = dict(list(made.items())[:1])
    magnitude = made | {f"{ADAPTED}.lora_magnitude_vector": torch.ones(64)}
    one_use = {TIED: torch.ones(2049, 128)}
    for number, (tensors, saying) in enumerate(
        (
            ({}, "holds no tensors"),
            (half, f"has only one factor of {ADAPTED}"),
            (magnitude, "lora_magnitude_vector, which plain LoRA has not"),
            (one_use, f"has trained {TIED} whole, but not depth_embeddings.0.embedding.weight"),
        )
    ):
        adapter = write_adapter(tmp_path / str(number), tensors)
        with pytest.raises(CheckpointError, match=saying):
            opened(base_folder, lora=adapter)
    with pytest.raises(CheckpointError, match=r"has no adapter_config.json. .* --weights"):
        opened(base_folder, lora=base_folder)
