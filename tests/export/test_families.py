"""Which family a checkpoint is of: the Japanese model, and what the user says instead."""

import json
import os
import shutil
from pathlib import Path

import pytest

from voxrill.runtime.errors import UsageError


@pytest.fixture
def family(exporter, tiny_checkpoints, tmp_path):
    """`family(folder, family, kind, **config)`: what the exporter makes of a tiny checkpoint in that folder."""
    from voxrill.export.checkpoint import open_checkpoint

    def detected(folder="model", family="", kind="lfm2.5", **config):
        place = shutil.copytree(tiny_checkpoints[kind], tmp_path / folder)
        written = json.loads((place / "config.json").read_text(encoding="utf-8")) | config
        (place / "config.json").write_text(json.dumps(written), encoding="utf-8")
        return exporter.detect_family(open_checkpoint(place), family)

    return detected


def test_the_english_models(family):
    assert (family().name, family("2", kind="lfm2").name) == ("lfm2.5-audio", "lfm2-audio")
    assert family("3").tasks.language == "en"


def test_the_japanese_model_is_known_by_its_interleaving(family):
    found = family("tuned", interleaved_n_text=6, interleaved_n_audio=9)
    assert (found.name, found.tasks.language) == ("lfm2.5-audio-jp", "ja")
    assert found.tasks.transcribe.system == "Perform ASR in japanese."
    assert found.tasks.speak.system == "Perform TTS in japanese."
    assert found.tasks.speak.voices == () and found.tasks.speak.voice == ""
    assert found.tasks.chat.system == "Respond with interleaved text and audio."


@pytest.mark.parametrize("name", ["LFM2.5-Audio-1.5B-JP", "lfm2.5-audio-1.5b-jp-clinic"])
def test_the_japanese_model_is_known_by_its_name(family, name):
    assert family(name).name == "lfm2.5-audio-jp"


@pytest.mark.parametrize("name", ["jpeg-captions", "LFM2.5-Audio-1.5B-JPN"])
def test_other_names_are_not_japanese(family, name):
    assert family(name).name == "lfm2.5-audio"


def test_the_user_knows_better(family):
    assert family("x-JP", "lfm2.5-audio").name == "lfm2.5-audio"
    assert family("plain", "lfm2.5-audio-jp").tasks.language == "ja"
    with pytest.raises(UsageError, match=r"there is no family 'lfm9'\. Give one of: lfm2-audio, lfm2\.5-audio, lfm2"):
        family("other", "lfm9")


def test_the_japanese_prompts_are_the_published_ones(family):
    if not os.environ.get("VOXRILL_PUBLISHED"):
        pytest.skip("VOXRILL_PUBLISHED names no folder of published outputs (docs/models/acceptance.md)")
    report = Path(os.environ["VOXRILL_PUBLISHED"]) / "reported" / "reported.json"
    if not report.is_file():
        pytest.skip(f"there is no {report}")
    published = json.loads(report.read_text(encoding="utf-8"))["liquid_audio_readme_jp"]
    tasks = family(published["model"].split("/")[-1]).tasks
    prompts = tasks.transcribe.system, tasks.speak.system, tasks.chat.system
    assert prompts == tuple(published[f"{task}_prompt"] for task in ("asr", "tts", "chat"))
