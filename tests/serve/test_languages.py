"""The served model's language: English, or what its bundle says."""

import msgspec
import pytest

from voxrill.runtime.bundle.builtin import open_builtin
from voxrill.runtime.serve.languages import is_language, language_name


@pytest.mark.parametrize("said", ["en", "EN-us", "en_GB", "English", " eng "])
def test_english_by_its_names(said):
    assert is_language("en", said) and not is_language("ja", said)


@pytest.mark.parametrize("said", ["ja", "ja-JP", "Japanese", "jpn"])
def test_japanese_by_its_names(said):
    assert is_language("ja", said) and not is_language("en", said)


def test_other_languages_have_their_code_only():
    assert is_language("fr", "fr-FR") and not is_language("fr", "french")
    assert [language_name(code) for code in ("en", "ja", "fr")] == ["english", "japanese", "fr"]
    assert [language_name(code, {"fr": "French"}) for code in ("en", "fr")] == ["english", "french"]


def test_wyoming_offers_the_language_of_the_bundle():
    pytest.importorskip("wyoming", reason="the serve extra is not installed")
    from voxrill.runtime.serve.wyoming.server_info import server_info

    manifest = open_builtin().manifest
    japanese = msgspec.structs.replace(manifest, tasks=msgspec.structs.replace(manifest.tasks, language="ja"))
    assert [server_info(one).asr[0].models[0].languages for one in (manifest, japanese)] == [["en"], ["ja"]]
