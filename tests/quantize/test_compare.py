"""What quantising did: the figures of `voxrill compare`, on models whose differences are known."""

import json
import math

import numpy as np
import pytest
import soundfile

import voxrill
from tests import signals
from voxrill.runtime.bundle.bundle import open_bundle
from voxrill.runtime.errors import UsageError

comparing = pytest.importorskip("voxrill.quantize.compare", reason="needs jiwer: pip install 'voxrill[quantize]'")


@pytest.fixture(scope="module")
def sounds():
    return [signals.speech_like(16_000, seed) for seed in range(2)]


@pytest.fixture(scope="module")
def int8(bundles, tmp_path_factory):
    """The tiny LFM2.5 bundle in 8 bits."""
    pytest.importorskip("onnx")
    from voxrill.quantize.bundle import quantize_bundle
    from voxrill.quantize.recipe import read_recipe

    target = tmp_path_factory.mktemp("compare") / "int8"
    quantize_bundle(open_bundle(bundles["lfm2.5"]), target, read_recipe("int8"))
    return target


@pytest.fixture(scope="module")
def folder(sounds, tmp_path_factory):
    """Sound files, one with its words beside it."""
    folder = tmp_path_factory.mktemp("sounds")
    for number, sound in enumerate(sounds):
        soundfile.write(folder / f"{number}.wav", sound, 16_000)
    (folder / "0.txt").write_text("turn on the light\n")
    (folder / "notes.md").write_text("not a sound")
    return folder


def test_a_model_is_like_itself(models, sounds):
    done = []
    found = comparing.compare(models["lfm2.5"], models["lfm2.5"], sounds, progress=done.append)
    assert done == [1, 2]
    for name in ("audio_encoder", "decoder", "text_head"):
        assert found.graphs[name]["worst_cosine"] > 1 - 1e-9
        assert found.graphs[name]["largest_error"] == 0
    assert not found.codec or (found.codec["snr_db"] > 200 and found.codec["log_spectral_distance_db"] == 0)
    assert found.text_tokens_kept == 1 and not any(found.codes_flipped)
    ends = found.end_to_end
    assert ends["same_transcript"] == ends["same_reply_text"] == ends["same_reply_codes"] == 1
    assert ends.get("wer_against_first", 0) == 0


def test_a_damaged_graph_is_the_one_that_shows(models, bundles, sounds, monkeypatch):
    """Only the backbone is disturbed: every other graph gets the same inputs, and stays exact."""
    other = voxrill.load(bundles["lfm2.5"], threads=1)
    forward = other.parts.backbone.forward
    noise = np.random.default_rng(0)

    def disturbed(rows, state):
        hidden = forward(rows, state)
        return hidden + 0.3 * np.abs(hidden).mean() * noise.standard_normal(hidden.shape).astype(np.float32)

    monkeypatch.setattr(other.parts.backbone, "forward", disturbed)
    found = comparing.compare(models["lfm2.5"], other, sounds)
    assert found.graphs["decoder"]["cosine"] < 0.99
    for name, summary in found.graphs.items():
        if name != "decoder":
            assert summary["largest_error"] == 0, name


def test_the_recorded_turn_is_the_model_s_own(models, sounds):
    model = models["lfm2.5"]
    turn = comparing.record(model, sounds[0], model.manifest.tasks.chat)
    assert len(turn.rows) == turn.prompt + len(turn.steps)
    *_, end = model.chat(audio=sounds[0], temperature=0, audio_temperature=0, sample_rate=16_000)
    tokens = [step.id for step in turn.steps if isinstance(step, comparing.Token)]
    assert tokens == end.result.tokens


def test_other_models_are_refused(models, sounds):
    with pytest.raises(UsageError, match="not of the same model"):
        comparing.compare(models["lfm2"], models["lfm2.5"], sounds)


def test_the_command(cli, bundles, int8, folder, tmp_path):
    ran = cli("compare", bundles["lfm2.5"], int8, "--audio", folder, "--json", "--threads", "1")
    assert ran.status == 0, ran.err
    found = json.loads(ran.out)
    assert found["sounds"] == 2
    assert found["sizes"][0] > 1.2 * found["sizes"][1]  # the codec keeps its size, and is most of a tiny bundle
    assert found["codec"] == {} or found["codec"]["snr_db"] > 100  # ... and its sound
    assert all(0.9 < summary["cosine"] <= 1 + 1e-9 for summary in found["graphs"].values())
    assert {"wer_first", "wer_second"} <= set(found["end_to_end"])
    assert all(math.isfinite(value) for value in found["end_to_end"].values())


def test_the_readable_form_and_the_picture(cli, bundles, int8, folder):
    pytest.importorskip("matplotlib")
    ran = cli("compare", bundles["lfm2.5"], int8, "--audio", folder, "--limit", "1", "--plot", "figures.png")
    assert ran.status == 0, ran.err
    assert "1 sounds" in ran.out and "codes flipped" in ran.out and "decoder" in ran.out
    with open("figures.png", "rb") as picture:
        assert picture.read(8) == b"\x89PNG\r\n\x1a\n"


def test_what_it_refuses(cli, bundles, int8, tmp_path):
    (tmp_path / "empty").mkdir()
    cli.refuses("compare", bundles["lfm2.5"], int8, "--audio", "empty", saying="empty is a folder without sounds")
    cli.refuses("compare", bundles["lfm2.5"], int8, "--audio", "nowhere", saying="not a folder")


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(cli, bundles, int8, folder):
    pytest.importorskip("matplotlib")
    cli.refuses(
        *("compare", bundles["lfm2.5"], int8, "--audio", folder, "--plot", "a.bmp"),
        saying=("a.bmp is not the name of a picture", ".png"),
    )
