"""Where each graph of a bundle runs, and from which file.

In: a bundle, the providers that a user chose, the tuned form. Out: a `Placement` for each graph. The CPU takes a tuned
graph where there is one; a chip of Qualcomm's takes the context binary that was compiled for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from voxrill.devices.choice import Choice
from voxrill.devices.providers import CPU_NAME, CPU_PROVIDER, Provider
from voxrill.devices.qnn import QNN, chip_of
from voxrill.runtime.bundle.bundle import Bundle
from voxrill.runtime.bundle.compiled import open_compiled
from voxrill.runtime.bundle.contract import is_for_npu
from voxrill.runtime.bundle.tuned import TunedForm


@dataclass(frozen=True)
class Placement:
    """A graph's provider, its file, and whether that is a tuned one."""

    provider: Provider
    file: Path
    tuned: bool = False


def place_graphs(bundle: Bundle, choice: Choice, tuned: TunedForm) -> dict[str, Placement]:
    """The placement of every graph of the model, by name.

    Raises:
        BundleError: the compiled form for a chosen chip is of another SDK or bundle, or was changed.
    """
    providers = {name: _provider(bundle, choice, name) for name in bundle.manifest.specs()}
    chips = {chip_of(provider) for provider in providers.values()}
    compiled = {chip: open_compiled(bundle, chip) for chip in chips if chip is not None}

    def placed(name: str, provider: Provider) -> Placement:
        chip = chip_of(provider)
        ready = tuned.path(name) if provider.name == CPU_NAME else compiled[chip].get(name) if chip else None
        file = bundle.path(bundle.manifest.graphs[name].file)
        return Placement(provider, ready or file, provider.name == CPU_NAME and ready is not None)

    return {name: placed(name, provider) for name, provider in providers.items()}


def _provider(bundle: Bundle, choice: Choice, name: str) -> Provider:
    """The chosen provider; of the npu flavour an NPU is given only the graphs that were made for one, unless named."""
    chosen = choice.of(name)
    npu = chosen.name == QNN and bundle.manifest.static is not None
    return CPU_PROVIDER if npu and not is_for_npu(name) and name not in choice.graphs else chosen
