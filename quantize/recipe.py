"""Recipes: which weight gets how many bits. A recipe is a TOML file that a user can copy and edit.

In: a file, or the name of one that ships here. Out: a `Recipe`, which has a rule for each weight.

    about = "what this recipe is for"

    [[weights]]        # the last entry that matches a weight decides
    graph = "decoder"  # a graph's name, or audio_embeddings; * and ? match as in file names
    name = "*.w2.*"    # a weight's name, as in the checkpoint
    bits = 4           # 2, 3, 4, 8, or 32 to leave it in float32
    block = 64         # 2 to 4 bits: rows that share a scale; fewer where a weight has fewer
    method = "gptq"    # 2 to 4 bits: "round" to the nearest, "k_quant" (searches each block's scale), or "gptq" (later
                       # rows correct each row's error; only for decoder and depthformer, and it needs --audio)

    [kv_cache]         # optional, for the cpu flavour: keys and values of the conversation in 8 bits. Their factors are
    bits = 8           # measured on the sounds of --audio, or on what the model itself says if there are none

    static = ["decoder*"]  # optional, before the first entry: graphs of the npu flavour that become a16w8, activations
                           # in 16 bits and all weights in 8; it needs --audio

An entry for a graph of another family is ignored, so that one recipe can serve every family.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import msgspec

from voxrill.runtime.bundle.contract import (
    AUDIO_DETOKENIZER,
    AUDIO_ENCODER,
    CODEC_DECODER,
    DECODER,
    DECODER_PREFILL,
    DEPTH_DECODER,
    DEPTHFORMER,
    MIMI_DECODER,
    TEXT_HEAD,
)
from voxrill.runtime.errors import DataError, UsageError
from voxrill.runtime.input_file import read_toml

By = Literal["weight", "layer", "kind"]
"""How weights are grouped into entries."""

RECIPES = Path(__file__).parent / "recipes"
GRAPHS = (
    AUDIO_ENCODER,
    DECODER,
    DECODER_PREFILL,
    TEXT_HEAD,
    DEPTHFORMER,
    DEPTH_DECODER,
    MIMI_DECODER,
    AUDIO_DETOKENIZER,
    CODEC_DECODER,
)
"""The graphs of every family."""
BLOCKS = (16, 32, 64, 128, 256)
"""The block sizes of onnxruntime's MatMulNBits."""

Bits = Literal[2, 3, 4, 8, 32]
FEW_BITS = (2, 3, 4)
"""Bits of weights in blocks."""

Method = Literal["round", "k_quant", "gptq"]
ROUND: Method = "round"
K_QUANT: Method = "k_quant"
GPTQ: Method = "gptq"


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How matching weights are stored. graph and name are patterns; see the module's example."""

    bits: Bits
    graph: str = "*"
    name: str = "*"
    block: int = 128
    method: Method = ROUND

    def matches(self, graph: str, weight: str) -> bool:
        """Whether this rule applies to a weight."""
        return fnmatchcase(graph, self.graph) and fnmatchcase(weight, self.name)


class KvCache(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How keys and values are stored in the KV cache of the cpu flavour: 8, or 32 for float32."""

    bits: Literal[8, 32]


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rules in order. The last rule that matches a weight decides; a weight without a rule stays float32.

    static: patterns of graphs that become a16w8 as a whole. Rules do not change them.
    """

    about: str
    weights: tuple[Rule, ...]
    static: tuple[str, ...] = ()
    kv_cache: KvCache = KvCache(32)

    @property
    def wants_sounds(self) -> bool:
        """Whether it needs recorded questions, to calibrate with."""
        return bool(self.static) or any(rule.method == GPTQ for rule in self.weights)

    def is_static(self, graph: str) -> bool:
        """Whether a graph's activations become integers, too."""
        return any(fnmatchcase(graph, pattern) for pattern in self.static)

    def rule(self, graph: str, weight: str) -> Rule:
        """The rule for one weight."""
        matching = [rule for rule in self.weights if rule.matches(graph, weight)]
        return matching[-1] if matching else Rule(bits=32)

    def check_names(self, known: dict[str, list[str]]) -> None:
        """Refuse rules that match none of the `known` weights (by graph): a misspelt name must not be ignored.

        Raises:
            DataError: a rule matches nothing, and is not for a graph of another family.
        """
        for rule in self.weights:
            graphs = [graph for graph in known if fnmatchcase(graph, rule.graph)]
            if not graphs:
                if any(fnmatchcase(graph, rule.graph) for graph in GRAPHS):
                    continue
                raise DataError(f"the recipe names the graph {rule.graph!r}", f"This bundle has: {', '.join(known)}")
            if not any(rule.matches(graph, name) for graph in graphs for name in known[graph]):
                some = ", ".join(known[graphs[0]][:3])
                raise DataError(
                    f"the recipe names weights {rule.name!r} of {rule.graph!r}, and there are none",
                    f"Give names such as: {some}",
                )


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with Voxrill."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def read_recipe(name: str) -> Recipe:
    """A shipped recipe by its name, or a recipe file by its path.

    Raises:
        UsageError: there is none.
        DataError: it is not a valid recipe.
    """
    path = RECIPES / f"{name}.toml" if name in shipped_recipes() else Path(name)
    if not os.path.exists(path):
        raise UsageError(f"there is no recipe {name!r}", f"Give a file, or one of: {', '.join(shipped_recipes())}")
    recipe = read_toml(path, Recipe, f"Copy and edit one of those in {RECIPES}")
    for rule in recipe.weights:
        check_block(rule.block, f"{path}: block")
        if rule.method != ROUND and rule.bits not in FEW_BITS:
            raise DataError(
                f"{path} has method = {rule.method!r} with {rule.bits} bits",
                "Leave the method out, or give bits = 4, 3 or 2",
            )
    return recipe


def check_block(block: int, where: str) -> None:
    """Refuse a block size without a kernel.

    Raises:
        UsageError: it is none of `BLOCKS`.
    """
    if block not in BLOCKS:
        raise UsageError(f"{where} = {block}", f"Give one of: {', '.join(map(str, BLOCKS))}")
