"""Acceptance: a bundle that says what the goldens say passes; one broken thing fails in its stage, and is named.

The goldens are made by the bundle itself, in the published layout, because the real weights cannot be had here. What
was published of those weights without them (tokens, prompts, log-mel, spectra) is compared where VOXRILL_PUBLISHED
names the folder.
"""

import hashlib
import json
import lzma
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import soundfile

import voxrill
from tests.checkpoints import make_checkpoint
from tests.places import ROOT
from tests.published import REVISION, Maker, write_sums
from voxrill.runtime.apps.acceptance import folder as files
from voxrill.runtime.apps.acceptance.accept import STAGES, accept, bounds_of, check_published, chosen_stages
from voxrill.runtime.apps.acceptance.folder import PublishedFolder
from voxrill.runtime.apps.acceptance.rows import FLOAT32, QUANTISED, AcceptanceRow, Near, Quantity
from voxrill.runtime.apps.acceptance.streams import (
    JudgedModel,
    asked,
    greedy_streams,
    replayed,
    same_at_first,
    two_turns,
)
from voxrill.runtime.apps.acceptance.weighted import Tally, transcript_quantities, word_errors
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.audio.log_mel import LogMel, LogMelConfig
from voxrill.runtime.bundle.bundle import open_bundle
from voxrill.runtime.bundle.contract import (
    AudioCodesSpec,
    BackboneSpec,
    EncoderSpec,
    InterleaveSpec,
    ModelSpec,
)
from voxrill.runtime.engine.context import Parts, Tokens
from voxrill.runtime.engine.generate import Frame, Token
from voxrill.runtime.engine.istft import Ends
from voxrill.runtime.engine.stats import StageTimes
from voxrill.runtime.engine.tokenizer import Tokenizer
from voxrill.runtime.errors import DataError, UsageError

FAMILY = "lfm2.5"


@pytest.fixture(scope="session")
def published(made_once, models, tiny_checkpoints):
    """The folder that the tiny model makes of itself; not to be changed."""
    return made_once("published", lambda folder: Maker(folder, models[FAMILY], tiny_checkpoints[FAMILY]).make())


@pytest.fixture
def own_copy(published, tmp_path):
    """A copy of the folder that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "published"))


def rows_of(model, published, *stages):
    return list(accept(model, PublishedFolder(published), chosen_stages(stages)))


def failing(rows):
    return {row.stage for row in rows if row.verdict == "FAIL"}


def test_a_bundle_that_says_the_same_is_accepted(cli, bundles, published, tiny_checkpoints):
    ran = cli("accept", bundles[FAMILY], "--published", published, "--checkpoint", tiny_checkpoints[FAMILY], "--json")
    assert ran.status == 0, ran.err
    *rows, end = [json.loads(line) for line in ran.out.splitlines()]
    assert {row["verdict"] for row in rows if row["stage"] != "free-running"} == {"pass"}
    assert {row["stage"] for row in rows} == {*STAGES, "audio table", "backbone"}
    assert end["accepted"] and end["near_ties"] == 0 and end["verdicts"]["pass"] > 40
    assert [row["compared"] for row in rows if "whole" in row["compared"]] == [
        "layer 0 (conv), whole",
        "layer 2 (full_attention), whole",
    ]


def test_a_bundle_of_fixed_shapes_is_judged_alike(npu_models, published):
    rows = rows_of(npu_models[FAMILY], published)
    assert {row.verdict for row in rows if row.stage != "free-running"} == {"pass"}


def test_the_table_says_what_was_not_compared(cli, bundles, published):
    ran = cli("accept", bundles[FAMILY], "--published", published, "--stage", "layers")
    assert ran.status == 0, ran.err
    head, *lines, end = ran.out.splitlines()
    assert head.split() == ["verdict", "stage", "compared", "found", "bound"]
    assert [line[:12] for line in lines] == ["pass        ", "not compared"]
    assert end.startswith("1 pass, 1 not compared; 0 near-ties")
    assert REVISION in ran.err


# Faults: each breaks one thing of a loaded model or of its bundle; the stages that must notice.


def rolled_mel(model, monkeypatch):
    right = LogMel.__call__
    monkeypatch.setattr(LogMel, "__call__", lambda self, waveform: np.roll(right(self, waveform), 1, 0))


def swapped_table(model, monkeypatch):
    right = model.parts.embed_frames
    monkeypatch.setattr(model.parts, "embed_frames", lambda codes: right(codes[[1, 0, *range(2, len(codes))]]))


def swapped_codes(model, monkeypatch):
    right = model.parts.depthformer.logits
    monkeypatch.setattr(model.parts.depthformer, "logits", lambda hidden, codes: right(hidden, codes)[::-1])


def late_sound(model, monkeypatch):
    right = model.parts.codec.decode
    monkeypatch.setattr(model.parts.codec, "decode", lambda codes: np.roll(right(codes), 1))


@pytest.mark.parametrize(
    "fault, stages, unharmed",
    [
        (rolled_mel, {"log-mel", "encoder"}, {"text", "depthformer", "codec", "layers"}),
        (swapped_table, {"audio table", "backbone", "turns"}, {"encoder", "text", "codec", "layers"}),
        (swapped_codes, {"depthformer", "streams", "turns"}, {"encoder", "text", "codec", "backbone", "layers"}),
        (late_sound, {"codec"}, {"encoder", "text", "depthformer", "streams", "turns", "spectra"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_fails_in_its_stage(fault, stages, unharmed, bundles, published, monkeypatch):
    model = voxrill.load(bundles[FAMILY], threads=1)
    fault(model, monkeypatch)
    found = failing(rows_of(model, published))
    assert stages <= found
    assert not unharmed & found


def changed_graph(bundle, folder, change):
    """A copy of a bundle in which `change` was made to the decoder's constants, by name."""
    onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
    from onnx import numpy_helper

    copy = Path(shutil.copytree(bundle, folder))
    graph = onnx.load(copy / "decoder.onnx")
    constants = {one.name: one for one in graph.graph.initializer}
    name, value = change({name: numpy_helper.to_array(one) for name, one in constants.items()})
    constants[name].CopyFrom(numpy_helper.from_array(value, name))
    onnx.save(graph, copy / "decoder.onnx")
    content = (copy / "decoder.onnx").read_bytes()
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["decoder.onnx"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def one_weight(constants):
    name = "lfm.layers.3.feed_forward.w2.weight"
    changed = constants[name].copy()
    changed[0] *= -8
    return name, changed


def rotary_base(constants):
    """The frequencies of a rotary base of 10 000, in place of a million's."""
    found = [
        name for name, value in constants.items() if value.ndim == 1 and value.dtype == np.float32 and value[0] == 1
    ]
    (name,) = [name for name in found if (np.diff(constants[name]) < 0).all()]
    count = len(constants[name])
    return name, (1 / 10_000.0 ** (np.arange(count) / count)).astype(np.float32)


@pytest.mark.parametrize("change", [one_weight, rotary_base])
def test_a_changed_graph_fails_at_the_backbone(change, bundles, published, tmp_path):
    model = voxrill.load(changed_graph(bundles[FAMILY], tmp_path / "changed", change), threads=1)
    found = failing(rows_of(model, published))
    assert "backbone" in found
    assert not {"encoder", "depthformer", "audio table", "codec", "log-mel", "layers"} & found


def test_a_failure_is_in_the_exit_status(cli, bundles, published, tmp_path):
    changed = changed_graph(bundles[FAMILY], tmp_path / "changed", one_weight)
    ran = cli("accept", changed, "--published", published, "--stage", "turns", "--stage", "codec")
    assert ran.status == 2
    assert "FAIL" in ran.out and "the bundle is not accepted: backbone" in ran.err


def test_a_quantised_bundle_has_the_same_table_with_looser_verdicts(bundles, published, tmp_path):
    pytest.importorskip("onnx", reason="the quantize extra is not installed")
    from voxrill.quantize.bundle import quantize_bundle
    from voxrill.quantize.recipe import read_recipe

    small = quantize_bundle(open_bundle(bundles[FAMILY]), tmp_path / "int8", read_recipe("int8"))
    model = voxrill.load(tmp_path / "int8", threads=1)
    assert bounds_of(small.manifest) is QUANTISED and bounds_of(open_bundle(bundles[FAMILY]).manifest) is FLOAT32
    rows = rows_of(model, published)
    reported = [row for row in rows if row.stage in ("encoder", "codec", "audio table")]
    assert reported and {row.quantities[0].bounded for row in reported} == {False}
    assert all(row.found != "exact" for row in reported if row.stage == "encoder")
    assert {row.verdict for row in rows if row.stage in ("tokenizer", "prompts", "log-mel", "order", "spectra")} == {
        "pass"
    }
    (hidden,) = [row for row in rows if row.stage == "backbone"]
    assert hidden.bound == "cosine ≥ 0.98"


def test_whole_layers_of_other_weights_fail(published, tmp_path):
    pytest.importorskip("torch", reason="the export extra is not installed")
    from voxrill.export.checkpoint import open_checkpoint
    from voxrill.export.published_layers import layer_rows

    make_checkpoint(tmp_path / "other", FAMILY, "tiny", seed=1)
    rows = layer_rows(open_checkpoint(tmp_path / "other"), PublishedFolder(published))
    assert [row.verdict for row in rows] == ["FAIL", "FAIL"]


# Folders that are no measure: each is refused before anything is compared, and what is wrong is named.


def refusal(bundle, folder, *stages):
    with pytest.raises((DataError, UsageError)) as refused:
        check_published(open_bundle(bundle).manifest, PublishedFolder(folder), chosen_stages(stages))
    return str(refused.value)


def test_missing_files_are_named(bundles, own_copy):
    for name in (files.ASR_SOUND, files.CODEC_8):
        (own_copy / name).unlink()
    said = refusal(bundles[FAMILY], own_copy)
    assert f"is incomplete: it has no {files.ASR_SOUND}, {files.CODEC_8}." in said
    assert "docs/models/acceptance.md" in said
    check_published(open_bundle(bundles[FAMILY]).manifest, PublishedFolder(own_copy), chosen_stages(["encoder"]))
    (own_copy / files.SUMS).unlink()
    assert f"has no {files.SUMS}." in refusal(bundles[FAMILY], own_copy, "encoder")


def test_a_folder_that_is_not_there(cli, bundles, tmp_path):
    ran = cli("accept", bundles[FAMILY], "--published", tmp_path / "nowhere")
    assert ran.status == 2 and "is incomplete" in ran.err and not ran.out


def test_changed_files_are_named(bundles, own_copy):
    with open(own_copy / files.FRAME, "ab") as file:
        file.write(b"\0")
    assert f"was changed: {files.SUMS} has another hash of {files.FRAME}." in refusal(bundles[FAMILY], own_copy)


def test_files_without_a_hash_are_named(bundles, own_copy):
    lines = (own_copy / files.SUMS).read_text().splitlines()
    (own_copy / files.SUMS).write_text("\n".join(line for line in lines if files.FRAME not in line))
    assert f"does not list {files.FRAME}." in refusal(bundles[FAMILY], own_copy)
    (own_copy / files.SUMS).write_text("no hashes")
    assert "is not a list of hashes" in refusal(bundles[FAMILY], own_copy)


def test_outputs_of_another_sound_are_named(bundles, own_copy):
    shutil.copy(own_copy / files.ASR_SOUND, own_copy / files.QUESTION)
    write_sums(own_copy)
    said = refusal(bundles[FAMILY], own_copy)
    for name in (files.STREAMS, files.SUMMARY, files.FRAMES_ORIGIN):
        assert f"{name} was made with another {files.QUESTION}" in said


def edited(folder, name, change):
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))
    write_sums(folder)


def test_outputs_of_different_revisions_are_named(bundles, own_copy):
    edited(own_copy, files.STREAMS, lambda value: value.update(checkpoint_revision="f" * 40))
    said = refusal(bundles[FAMILY], own_copy)
    assert f"{files.STREAMS} ffffffffffff" in said and f"{files.TEXT_STEPS} {REVISION[:12]}" in said


def test_a_bundle_of_another_revision_is_refused(bundles, published):
    manifest = open_bundle(bundles[FAMILY]).manifest
    for revision, refused in (("f" * 40, True), (REVISION, False), ("local", False)):
        source = msgspec.structs.replace(manifest.source, revision=revision)
        bundle = msgspec.structs.replace(manifest, source=source)
        if refused:
            with pytest.raises(UsageError, match=r"at revision ffffffffffff, .* are of revision 0123456789ab"):
                check_published(bundle, PublishedFolder(published), chosen_stages([]))
        else:
            assert check_published(bundle, PublishedFolder(published), chosen_stages([])) == REVISION


def test_a_bundle_with_another_codec_is_refused(bundles, published):
    assert "codec is mimi_decoder" in refusal(bundles["lfm2"], published)


def test_arrays_of_another_size_name_both_shapes(models, own_copy):
    np.savez(own_copy / files.FRAME, hidden=np.zeros((1, 99), np.float32))
    with pytest.raises(DataError, match=r"hidden of .* has the shape \(1, 99\); this bundle needs \(1, 64\)"):
        rows_of(models[FAMILY], own_copy, "depthformer")


def array_of(folder, name, key, change):
    """Change one array of a file."""
    with np.load(folder / name) as found:
        arrays = dict(found)
    arrays[key] = change(arrays[key])
    np.savez(folder / name, **arrays)


def end_code_in_the_middle(codes):
    codes[1, 0] = 2048
    return codes


@pytest.mark.parametrize(
    "name, key, change, stage, said",
    [
        (files.FRAME, "tokens", lambda a: a + 2049, "depthformer", "whole number below 2049"),
        (files.FRAMES, "source_bf16_tokens", lambda a: a - 3000, "depthformer", "whole number below 2049"),
        (files.CODEC_4, "codes", lambda a: a * 0 + 2048, "codec", "whole number below 2048"),
        (files.FRAMES, "generation_step", lambda a: a + 999, "turns", "holds what is not a whole number below"),
        (files.FRAMES, "hidden", lambda a: a[:0], "depthformer", "is empty"),
        (
            files.TURNS,
            "turn1_audio_tokens",
            end_code_in_the_middle,
            "turns",
            "turn1 has codes",
        ),
        (files.TURNS, "turn2_text_tokens", lambda a: a + 10_000, "turns", "tokens that this bundle does not have"),
    ],
)
def test_numbers_out_of_range_are_named(models, own_copy, name, key, change, stage, said):
    array_of(own_copy, name, key, change)
    with pytest.raises(DataError, match=said):
        rows_of(models[FAMILY], own_copy, stage)


def test_a_file_that_is_no_sound_is_named(models, own_copy):
    (own_copy / files.TURN_SOUNDS[0]).write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"interleaved_turn1.wav is not a sound"):
        rows_of(models[FAMILY], own_copy, "codec")


def test_a_bundle_that_is_too_small_for_a_sound_says_so(bundles, published, monkeypatch):
    model = voxrill.load(bundles[FAMILY], threads=1)
    monkeypatch.setattr(model.parts.encoder, "frames", 8)  # as an npu bundle's, whose shapes are fixed
    rows = rows_of(model, published, "transcript", "spectra")
    assert (rows[0].stage, rows[0].verdict) == ("spectra", "pass")
    assert rows[-1].verdict == "not compared" and "--mel-frames" in rows[-1].found


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no archive", "pickled"])
def test_arrays_that_cannot_be_read_are_named(models, own_copy, content):
    if content == "pickled":
        np.savez(own_copy / files.FRAME, hidden=np.array([object()]))
    else:
        (own_copy / files.FRAME).write_bytes(content)
    with pytest.raises(DataError, match=f"{files.FRAME} holds no arrays"):
        rows_of(models[FAMILY], own_copy, "depthformer")


def test_arrays_that_unpack_to_more_than_any_are_named(models, own_copy):
    np.savez_compressed(own_copy / files.FRAME, hidden=np.zeros(17 << 20, np.float32))
    assert (own_copy / files.FRAME).stat().st_size < 1 << 20
    with pytest.raises(DataError, match="unpacks to more than 64 MB"):
        rows_of(models[FAMILY], own_copy, "depthformer")


def test_arrays_that_are_no_numbers_are_named(models, own_copy):
    np.savez(own_copy / files.FRAME, hidden=np.full((1, 64), np.nan, np.float32))
    with pytest.raises(DataError, match="not a finite number"):
        rows_of(models[FAMILY], own_copy, "depthformer")
    np.savez(own_copy / files.FRAME, other=np.zeros(1))
    with pytest.raises(DataError, match="has no array hidden"):
        rows_of(models[FAMILY], own_copy, "depthformer")


def shorter(value):
    value["cases"][0]["sequences"].pop()


def unknown_token(value):
    value["cases"][0]["sequences"][0] = 1 << 30


def unknown_mode(value):
    value["cases"][0]["mode"] = "backwards"


def unknown_sound(value):
    value["cases"][0]["audio"] = "../../secret.wav"


def no_cases(value):
    del value["cases"]


@pytest.mark.parametrize(
    "change, said",
    [
        (shorter, "text tokens and 0 frames among"),
        (unknown_token, "stream asr has tokens that this bundle does not have"),
        (unknown_mode, "mode 'backwards'"),
        (unknown_sound, "hears audio/../../secret.wav"),
        (no_cases, "missing required field `cases`"),
    ],
)
def test_streams_that_do_not_hold_together_are_named(models, own_copy, change, said):
    edited(own_copy, files.STREAMS, change)
    if change is shorter:
        said = said.replace(
            "31", str(len(json.loads((own_copy / files.STREAMS).read_text())["cases"][0]["modalities"]))
        )
    with pytest.raises(DataError) as refused:
        rows_of(models[FAMILY], own_copy, "order", "streams")
    assert said in str(refused.value)


def test_unknown_stages_and_a_missing_folder_are_refused(cli, bundles, published, monkeypatch):
    monkeypatch.delenv("VOXRILL_PUBLISHED", raising=False)
    ran = cli("accept", bundles[FAMILY], "--published", published, "--stage", "smell")
    assert ran.status == 2 and "there is no stage smell" in ran.err and "tokenizer, prompts" in ran.err
    ran = cli("accept", bundles[FAMILY], "--published", "nowhere")
    assert ran.status == 2 and "nowhere" in ran.err


# What the table is made of.


def test_near_ties_are_counted_and_far_ones_fail():
    tally = Tally()
    for gap in (0.0, 0.3, 0.5):
        tally.add(np.array([1.0, 1.0 - gap, -3.0], np.float32), 1)
    row = AcceptanceRow("text", "three steps", tally.quantities(Near(gap=0.5)))
    assert {one.name: one.value for one in row.quantities} == {"best": pytest.approx(1 / 3), "near-ties": 2, "gap": 0.5}
    assert row.verdict == "pass"
    tally.add(np.array([1.0, 0.25, -3.0], np.float32), 1)
    assert AcceptanceRow("text", "four steps", tally.quantities(Near(gap=0.5))).verdict == "FAIL"


def test_codes_that_were_drawn_count_from_the_last_candidate():
    tally = Tally(rank=2)
    tally.add(np.array([3.0, 2.0, 1.75], np.float32), 1)
    tally.add(np.array([3.0, 2.0, 1.75], np.float32), 2)
    share, ties, gap = tally.quantities(Near(share=0.5, gap=0.25))
    assert (share.name, share.value, ties.value, gap.value) == ("among 2 best", 0.5, 1, 0.25)
    assert share.passes and gap.passes and not tally.quantities(Near(share=0.6))[0].passes


def test_what_is_no_number_keeps_no_bound():
    assert not Quantity("error", float("nan"), most=1).passes
    assert not Quantity("cosine", float("nan"), least=0.9).passes
    assert AcceptanceRow("x", "y", note="why").verdict == "not compared"
    assert AcceptanceRow("x", "y", (Quantity("steps", 3),)).verdict == "reported"


def test_word_errors():
    assert word_errors("a b c", "a b c") == 0
    assert word_errors("a b c", "a c") == 1
    assert word_errors("a b c", "a x c d") == 2
    assert word_errors("a", "") == 1 and word_errors("", "a b") == 2


def test_a_quantised_transcript_may_have_one_word_of_43_wrong():
    wanted = " ".join(map(str, range(43)))
    for found, float32, quantised in (
        (wanted, True, True),
        (wanted.replace("17", "71"), False, True),
        (wanted.replace("17", "71").replace("23", "32"), False, False),
    ):
        verdicts = [
            all(one.passes for one in transcript_quantities(wanted, found, bounds)) for bounds in (FLOAT32, QUANTISED)
        ]
        assert verdicts == [float32, quantised]


def test_the_page_names_every_stage_and_file():
    page = (ROOT / "docs" / "models" / "acceptance.md").read_text(encoding="utf-8")
    names = {name for stage in STAGES.values() for name in stage.files}
    assert [name for name in STAGES if f"`{name}`" not in page] == []
    assert [name for name in names if f"`{name}`" not in page and f"`_{name.split('_')[-1]}`" not in page] == []


def test_nothing_is_computed_after_the_first_step_that_differs():
    asked_for = iter([Token(1), Token(3), Token(4)])
    assert same_at_first(asked_for, [Token(1), Token(2), Token(4)]) == 1
    assert list(asked_for) == [Token(4)]


def test_only_the_first_code_of_an_end_frame_counts():
    end, other = (Frame(np.array([2048, *codes]), ends=True) for codes in ((1, 2), (3, 4)))
    assert same_at_first([Token(1), end], [Token(1), other]) == 2
    assert same_at_first([Token(1), end], [Token(1), Token(2)]) == 1


# What was published of the real weights, where the folder is.


@pytest.fixture(scope="session")
def real():
    """The real folder."""
    if not os.environ.get("VOXRILL_PUBLISHED"):
        pytest.skip("VOXRILL_PUBLISHED names no folder of published outputs (docs/models/acceptance.md)")
    return Path(os.environ["VOXRILL_PUBLISHED"])


@pytest.fixture(scope="session")
def real_subject(real, tmp_path_factory):
    """The real tokenizer, prompts and sizes, and nothing that computes."""
    pytest.importorskip("torch", reason="the export extra is not installed")
    from voxrill.export.families import LFM25_AUDIO

    text = lzma.decompress((real / "tokenizer" / "lfm2_tokenizer.json.xz").read_bytes()).decode()
    for old, new in json.loads((real / "tokenizer" / "renames.json").read_text())["renames"].values():
        text = text.replace(old, new)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(text)
    spec = ModelSpec(
        backbone=BackboneSpec(2048, 65536, ("conv", "full_attention"), 8, 64, 3, 128_000),
        encoder=EncoderSpec(subsampling=8),
        codes=AudioCodesSpec(codebooks=8, vocab_size=2049, end_of_audio=2048),
        codec=SimpleNamespace(n_fft=1280, hop=320),
        interleave=InterleaveSpec(text=6, audio=12),
        log_mel=LogMelConfig(),
    )
    return JudgedModel(
        Parts(
            spec=spec,
            tokenizer=Tokenizer(path),
            encoder=None,
            backbone=SimpleNamespace(new_state=lambda: SimpleNamespace(length=0)),
            depthformer=None,
            text_table=_NoRows(),
            audio_table=_NoRows(),
            codec=None,
            times=StageTimes(),
        ),
        LFM25_AUDIO.tasks,
    )


class _NoRows:
    """A table that knows how many rows it is asked for."""

    def rows(self, ids):
        return np.zeros((*np.shape(ids), 1), np.float32)


def test_the_real_folder_is_whole(real):
    revisions = PublishedFolder(real).check(name for stage in STAGES.values() for name in stage.files)
    assert len(revisions) == 4


@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if not stage.weights])
def test_published_outputs_that_need_no_weights(real, real_subject, name):
    rows = list(STAGES[name].run(real_subject, PublishedFolder(real), FLOAT32))
    assert [(row.compared, row.found) for row in rows if row.verdict != "pass"] == []
    assert len(rows) == {"tokenizer": 2, "prompts": 8, "log-mel": 2, "order": 9, "spectra": 2}[name]
    if name == "tokenizer":
        assert rows[0].found == "encoded otherwise 0"


def test_the_page_has_the_hashes_of_the_real_files(real):
    page = (ROOT / "docs" / "models" / "acceptance.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `([^`]+)` \| .* \| `([0-9a-f]{64})` \|$", page, re.MULTILINE))
    assert len(told) == 10
    for name, sha256 in told.items():
        assert hashlib.sha256((real / name).read_bytes()).hexdigest() == sha256, name


def test_the_real_special_tokens(real_subject):
    known = {"start": 1, "im_start": 6, "im_end": 7, "audio_start": 128, "text_end": 130}
    assert real_subject.parts.tokenizer.ids == known


def test_real_texts_survive_a_round_trip(real, real_subject):
    own = real_subject.parts.tokenizer
    lines = (real / "reported" / "asr_bf16_librispeech_dummy.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [value for line in lines for value in json.loads(line).values() if isinstance(value, str)]
    texts += [text for text in strings(json.loads((real / "reported" / "reported.json").read_text(encoding="utf-8")))]
    assert len(texts) > 100 and any("\u3040" <= letter <= "\u30ff" for text in texts for letter in text)
    for text in texts:
        ids, stream = own.encode(text), own.stream()
        assert own.decode(ids) == text == "".join(map(stream.push, ids))


def strings(value):
    """All texts in a piece of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from strings(one)


def test_real_streams_have_as_much_sound_as_frames(real, real_subject):
    folder = PublishedFolder(real)
    cases = [(case, stream) for case, stream in greedy_streams(folder, real_subject.parts) if case.waveform_shape]
    assert [stream.sound.shape[1] * 1920 for _, stream in cases] == [case.waveform_shape[-1] for case, _ in cases]
    assert [stream.sound.shape[1] for _, stream in cases] == [51, 29, 29, 24, 60]
    for name, stream in zip(files.TURN_SOUNDS, two_turns(folder, real_subject.parts), strict=True):
        assert soundfile.info(real / name).frames == stream.sound.shape[1] * 1920


def test_real_streams_end_alike_with_the_default_limit(real, real_subject):
    default = real_subject.tasks.speak.max_new_tokens
    for case, stream in greedy_streams(PublishedFolder(real), real_subject.parts):
        if case.mode == "sequential":
            steps, finish = replayed(real_subject.parts, replace(stream, limit=default))
            assert (len(steps), finish) == (len(stream.steps) - 1, "stop")
            if not case.waveform_shape:
                assert replayed(real_subject.parts, stream, text_only=True) == (steps, "stop")


@pytest.mark.parametrize("name", ["asr_jp", "question_jp", "asr_of_question"])
def test_real_prompts_of_other_sounds(real, real_subject, name):
    """Japanese recognition has another prompt; sound at 24 kHz becomes as many positions as the reference has."""
    wanted = json.loads((real / files.PROMPTS).read_text())[name]
    prompt, sound = {
        "asr_jp": ("Perform ASR in japanese.", "asr_jp.wav"),
        "question_jp": (real_subject.tasks.chat.system, "question_jp.wav"),
        "asr_of_question": (real_subject.tasks.transcribe.system, "question.wav"),
    }[name]
    rows = -(-LogMelConfig().frames(len(read_audio(real / "audio" / sound))) // 8)
    context = asked(real_subject.parts, prompt, np.zeros((rows, 1), np.float32))
    ids = [token for piece in context.pieces if isinstance(piece, Tokens) for token in piece.ids]
    assert (ids, rows, context.positions) == (wanted["text_ids"], wanted["sound_positions"], wanted["positions"])


def test_the_real_codec_is_causal(real):
    """The first frames alone (a CPU) sound as in the whole turn (a GPU, 16 bits), up to what waits for overlap."""
    with np.load(real / files.CODEC_REAL) as found:
        alone = found["waveform"][0]
    whole, _ = soundfile.read(real / files.TURN_SOUNDS[0], dtype="float32")
    final = len(alone) - 3 * 320
    assert np.abs(alone[:final] - whole[:final]).max() < 1.1 / 32768


def test_the_graph_of_a_phone_makes_the_same_sound_of_real_spectra(real):
    torch = pytest.importorskip("torch", reason="the export extra is not installed")
    from voxrill.export.inverse_stft import InverseStft

    for name in (files.CODEC_4, files.CODEC_8):
        with np.load(real / name) as found:
            features = np.concatenate([found["log_abs"], found["angle"]], 1).transpose(0, 2, 1)
            wanted = found["waveform"][0]
        made, overlap = InverseStft(1280, 4)(torch.from_numpy(features.copy()), torch.zeros(1, 960))
        ends = Ends(1280, 320)
        sound = np.concatenate([ends.push(made[0].numpy()), ends.flush(overlap[0].numpy())])
        assert np.abs(sound - wanted).max() < 1e-5
