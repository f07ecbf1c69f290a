"""Passages found by what they mean: a tiny sentence model, in which some words lie near each other."""

import json
import shutil
import sqlite3

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

import voxrill
from voxrill.runtime.apps.documents import nearest
from voxrill.runtime.apps.documents.embeddings import Embedder
from voxrill.runtime.apps.documents.index import Index
from voxrill.runtime.errors import DataError

MEANINGS = (("[PAD]", "[UNK]"), ("kettle", "teapot"), ("dog", "hound"), ("rent", "lease"), ("red", "crimson"))
"""Words that have one vector: those of a group; unknown ones and padding have another."""

WORDS = {word: number for number, word in enumerate(word for group in MEANINGS for word in group)}


def write_model(folder, inputs=("input_ids", "attention_mask"), scale=1.0):
    """A sentence model as it lies on the hub: a table of vectors, and a tokenizer of words."""
    table = np.zeros((len(WORDS), len(MEANINGS)), np.float32)
    for meaning, group in enumerate(MEANINGS):
        table[[WORDS[word] for word in group], meaning] = scale if meaning else 0.1
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["states"])],
        "sentences",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ("texts", "tokens")) for name in inputs],
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ("texts", "tokens", len(MEANINGS)))],
        [numpy_helper.from_array(table, "table")],
    )
    (folder / "onnx").mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save_model(model, str(folder / "onnx" / "model.onnx"))
    tokenizer = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.enable_padding(length=64)  # as that of all-MiniLM-L6-v2 has it
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def sentences(tmp_path):
    return write_model(tmp_path / "sentences")


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in (("tea", "a kettle of tin"), ("pet", "a dog that barks"), ("flat", "a lease of ten years")):
        (folder / f"{name}.txt").write_text(f"{text}\n")
    return folder


def opened(docs, sentences=None):
    embedder = None if sentences is None else Embedder(sentences)
    return Index(docs, lambda text: len(text.split()), "words", docs.parent / "index.sqlite3", embedder)


def names(found):
    return [one.file for one in found]


def vectors(docs):
    """The files of the index's vectors, and whether their lengths are one."""
    database = sqlite3.connect(docs.parent / "index.sqlite3")
    rows = database.execute(
        "SELECT name, vector FROM vectors JOIN passages ON passages.id = passage JOIN files ON files.id = file"
        " ORDER BY name"
    ).fetchall()
    (orphans,) = database.execute(
        "SELECT count(*) FROM vectors WHERE passage NOT IN (SELECT id FROM passages)"
    ).fetchone()
    database.close()
    assert not orphans
    assert all(abs(np.linalg.norm(np.frombuffer(blob, np.float16).astype(float)) - 1) < 0.01 for _, blob in rows)
    return [name for name, _ in rows]


def test_other_words_for_the_same_are_found(docs, sentences):
    with opened(docs) as index:
        index.update()
        assert not index.search("hound") and names(index.search("dog")) == ["pet.txt"]
    with opened(docs, sentences) as index:
        assert index.update().embedded == 3
        (found,) = index.search("hound")
        assert found.file == "pet.txt" and found.coverage == 0 and found.similarity > 0.5
        (found,) = index.search("dog")
        assert found.file == "pet.txt" and found.coverage == 1 and found.similarity > 0.5
        assert not index.search("crimson") and not index.search(" ")


def test_both_ways_of_searching_count(docs, sentences):
    """What is found by its words and its meaning comes before what is found by one of them."""
    (docs / "both.txt").write_text("the teapot and the kettle\n")
    (docs / "meant.txt").write_text("teapot\n")
    with opened(docs, sentences) as index:
        index.update()
        found = names(index.search("kettle"))
    assert set(found) == {"both.txt", "tea.txt", "meant.txt"} and found[-1] == "meant.txt"


def test_only_what_changed_is_read_again(docs, sentences, tmp_path):
    with opened(docs, sentences) as index:
        assert index.update().embedded == 3 and index.update().embedded == 0
        (docs / "pet.txt").write_text("a crimson chair\n")
        (docs / "flat.txt").unlink()
        assert index.update().embedded == 1
        assert names(index.search("red")) == ["pet.txt"] and not index.search("hound") and not index.search("rent")
    assert vectors(docs) == ["pet.txt", "tea.txt"]
    other = write_model(tmp_path / "other", scale=2.0)
    with opened(docs, other) as index:
        assert index.update().embedded == 2 and names(index.search("crimson")) == ["pet.txt"]
    assert vectors(docs) == ["pet.txt", "tea.txt"]
    with opened(docs) as index:  # without a sentence model it is the index that it was
        assert index.update().embedded == 0 and names(index.search("crimson")) == ["pet.txt"]


def test_stopped_midway_it_goes_on(docs, sentences, monkeypatch):
    monkeypatch.setattr(nearest, "TOGETHER", 1)
    done = []

    def stop(stage, at, total):
        if stage == "embedding":
            done.append((at, total))
            if at == 2:
                raise KeyboardInterrupt

    with opened(docs, sentences) as index:
        with pytest.raises(KeyboardInterrupt):
            index.update(stop)
        assert done == [(0, 3), (1, 3), (2, 3)] and len(vectors(docs)) == 2
        assert index.update().embedded == 1
    assert vectors(docs) == ["flat.txt", "pet.txt", "tea.txt"]


def test_more_passages_than_are_compared_at_once(docs, sentences, monkeypatch):
    monkeypatch.setattr(nearest, "_PIECE", 2)
    for number in range(7):
        (docs / f"{number}.txt").write_text(f"number {number} " * 9 + "hound " * (number + 1))
    with opened(docs, sentences) as index:
        index.update()
        found = index.search("hound", best=4)
    assert found[0].file == "6.txt" and len(found) == 4


def test_padding_and_length_do_not_count(sentences):
    """A text has the vector it has alone, whatever is longer beside it; of a long text the beginning is read."""
    (sentences / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    embedder = Embedder(sentences)
    alone, long = embedder.passages(["dog kettle"]), "kettle " * 40
    assert np.allclose(embedder.passages(["dog kettle", "rent rent rent rent rent"])[0], alone[0])
    assert np.allclose(embedder.passages([long + "dog"]), embedder.passages([long]))
    assert np.allclose(alone[0] @ embedder.question("hound teapot"), 1)


def test_the_model_s_own_settings(sentences):
    plain = Embedder(sentences)
    (sentences / "1_Pooling").mkdir()
    pooling = sentences / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    first = Embedder(sentences)
    assert first.identity != plain.identity
    assert np.allclose(first.question("dog rent rent"), plain.question("dog"))
    (sentences / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "kettle "}}))
    asking = Embedder(sentences)
    assert np.allclose(asking.question("dog"), first.question("kettle"))
    assert np.allclose(asking.passages(["dog"]), first.passages(["dog"])) and asking.identity != first.identity
    pooling.write_text(json.dumps({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}))
    with pytest.raises(DataError, match="pools tokens"):
        Embedder(sentences)


def test_a_graph_that_gives_sentences_itself(tmp_path):
    """Two dimensions are vectors of texts."""
    folder = write_model(tmp_path / "whole")
    proto = onnx.load(folder / "onnx" / "model.onnx")
    proto.graph.node[0].output[0] = "tokens"
    proto.graph.node.append(helper.make_node("ReduceMean", ["tokens", "axis"], ["states"], keepdims=0))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    del proto.graph.output[0].type.tensor_type.shape.dim[1]
    onnx.save_model(proto, str(folder / "model.onnx"))
    shutil.rmtree(folder / "onnx")
    assert np.allclose(Embedder(folder).question("dog dog"), Embedder(folder / "model.onnx").question("hound"))


def without(folder, name):
    (folder / name).unlink()


def cut(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (without, "onnx/model.onnx", "holds neither model.onnx nor onnx/model.onnx"),
        (without, "tokenizer.json", "no tokenizer.json"),
        (cut, "onnx/model.onnx", "cannot be loaded"),
        (cut, "tokenizer.json", "not a readable tokenizer"),
    ],
)
def test_a_model_that_is_not_whole(sentences, change, name, words):
    change(sentences, name)
    with pytest.raises(DataError, match=words):
        Embedder(sentences)


def test_graphs_that_are_no_sentence_models(tmp_path, sentences):
    with pytest.raises(DataError, match="it wants pixels"):
        Embedder(write_model(tmp_path / "pixels", inputs=("input_ids", "pixels")))
    (sentences / "sentence_bert_config.json").write_text("{")
    with pytest.raises(DataError, match=r"sentence_bert_config\.json cannot be read"):
        Embedder(sentences)


SETTINGS = ("sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json", "tokenizer.json")
LIES = (
    "[]", "null", "3", '"x"', "{", "", "\ufeff{}", "[" * 100_000, '{"a":' * 100_000, '{"prompts": ["x"]}',
    '{"prompts": {"query": 3}}', '{"max_seq_length": -1}', '{"max_seq_length": 1e99}', '{"max_seq_length": "8"}',
    f'{{"max_seq_length": {2**70}}}', '{"pooling_mode_cls_token": "yes"}', '{"padding": {"pad_id": -1}}',
)  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_a_folder_that_lies_about_its_settings(docs, sentences, name):
    (sentences / "1_Pooling").mkdir()
    for lie in LIES:
        (sentences / name).write_text(lie)
        try:
            with opened(docs, sentences) as index:
                index.update()
                index.search("hound")
        except DataError as error:
            assert name in str(error)


def test_a_tokenizer_of_other_tokens(docs, sentences):
    known = json.loads((sentences / "tokenizer.json").read_text())
    known["model"]["vocab"] = {"[PAD]": 0, "kettle": 999}
    (sentences / "tokenizer.json").write_text(json.dumps(known))
    with opened(docs, sentences) as index, pytest.raises(DataError, match="tokenizer beside"):
        index.update()
    known["model"]["vocab"]["[UNK]"] = 1000
    (sentences / "tokenizer.json").write_text(json.dumps(known))
    with opened(docs, sentences) as index, pytest.raises(DataError, match="cannot be run"):
        index.update()


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "words"),
    [
        ("Log", ["zero"], {}, "hold no numbers"),
        ("Shape", ["input_ids"], {}, "no vectors"),
        ("Transpose", ["zero"], {"perm": [1, 0, 2]}, "for"),
        ("Slice", ["zero", "none", "none", "last"], {}, "no vectors"),
        ("ReduceSum", ["zero"], {"keepdims": 0}, "no vectors"),
    ],
)
def test_a_graph_that_gives_other_than_it_declares(docs, sentences, operator, inputs, attributes, words):
    path = sentences / "onnx" / "model.onnx"
    proto = onnx.load(path)
    proto.graph.node[0].output[0] = "known"
    proto.graph.node.append(helper.make_node("Sub", ["known", "known"], ["zero"]))
    proto.graph.node.append(helper.make_node(operator, inputs, ["states"], **attributes))
    for name, value in (("none", 0), ("last", 2)):
        proto.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
    del proto.graph.output[0]
    proto.graph.output.append(helper.make_tensor_value_info("states", _kind(operator), ("x", "y", "z")))
    onnx.save_model(proto, str(path))
    with pytest.raises(DataError, match=words), opened(docs, sentences) as index:
        index.update()


def _kind(operator):
    return TensorProto.INT64 if operator == "Shape" else TensorProto.FLOAT


def test_from_python_and_on_the_command_line(cli, docs, sentences, tmp_path):
    with voxrill.load(threads=1).documents(docs, tmp_path / "its.sqlite3", embeddings=sentences) as index:
        assert names(index.search("teapot")) == ["tea.txt"]
    ask = ("ask", "teapot", "--docs", docs, "--quote", "--json", "--index", "cli.sqlite3")
    assert [one["file"] for one in json.loads(cli(*ask, "--embeddings", sentences).out)["sources"]] == ["tea.txt"]
    assert json.loads(cli(*ask).out)["sources"] == []
    ran = cli(*ask, "--embeddings", docs)
    assert ran.status == 2 and "holds neither" in ran.err and "onnx/model.onnx" in ran.err
