"""Which execution provider runs each graph: what the user or a profile says.

In: words such as `openvino`, `depthformer=cpu`, or a profile. Out: a `Choice`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from voxrill.devices.profile import read_profile, shipped_profiles
from voxrill.devices.providers import CPU_PROVIDER, Provider, find_provider

_GRAPH = re.compile(r"([^:=]*)=")
"""The graph's name before the first `=`. A colon before it means that the `=` belongs to a setting."""

ALL = "all"
"""Stands for every graph that is not named."""


@dataclass(frozen=True)
class Choice:
    """Providers by graph; the CPU where none was chosen. strict: refuse a graph that would run partly on the CPU."""

    providers: Mapping[str, Provider] = field(default_factory=dict)
    strict: bool = False

    def of(self, graph: str) -> Provider:
        """The provider of a graph."""
        return self.providers.get(graph) or self.providers.get(ALL) or CPU_PROVIDER

    @property
    def graphs(self) -> set[str]:
        """Graphs that were named."""
        return set(self.providers) - {ALL}


CPU_ONLY = Choice()


def choose(words: Iterable[str], strict: bool = False) -> Choice:
    """A choice from words: NAME, GRAPH=NAME, or a profile's short name or file.

    A later word overrides an earlier one. NAME may have settings, as in `qnn:soc=SM8650` (see `find_provider`).

    Raises:
        DeviceError: a provider, or a setting of one, is not known.
        ProfileError: a profile cannot be read.
    """
    names: dict[str, str] = {}
    for word in words:
        graph = _GRAPH.match(word)
        if graph:
            names[graph[1]] = word[graph.end() :]
        elif word in shipped_profiles() or word.endswith(".toml"):
            names |= read_profile(word).provider
        else:
            names[ALL] = word
    return Choice({graph: find_provider(name) for graph, name in names.items()}, strict)
