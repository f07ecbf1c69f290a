"""Profiles: the figures of a device, and how each is known. A profile is a TOML file that a user can copy and edit.

In: a short name, or a file. Out: a `Profile`.

    name = "Raspberry Pi 5"
    memory_gb = { value = 4, evidence = "cited", source = "product brief" }
    ...

Evidence is `measured` on the device itself, `emulated` or `simulated` elsewhere, `cited` from a named source, or
`assumed`: then it is our judgement, and so is everything that is computed from it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec

from voxrill.devices.memory import gigabytes, total_memory
from voxrill.devices.stages import Machine
from voxrill.runtime.errors import DataError, DeviceError, ProfileError
from voxrill.runtime.input_file import read_toml

PROFILES = Path(__file__).parent / "profiles"

Evidence = Literal["measured", "emulated", "simulated", "cited", "assumed"]
InstructionSet = Literal["amx_int8", "avx512_vnni", "avx_vnni", "avx2", "neon_i8mm", "neon_dotprod", "neon", "scalar"]
Products = Literal["onnxruntime", "own"]
OWN: Products = "own"
HERE = "this machine"
"""The name of a profile that describes the machine it is read on. Its figures can be compared with the machine's."""
NO_DOT_PRODUCT: tuple[InstructionSet, ...] = ("neon", "scalar")
"""On these onnxruntime has no 4-bit kernel for 8-bit activations. It computes in float32 instead."""

T = TypeVar("T")


class ProfileValue(msgspec.Struct, Generic[T], frozen=True, forbid_unknown_fields=True):
    """A value, how it is known, and where from."""

    value: T
    evidence: Evidence
    source: str = ""


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A device.

    Attributes:
        name: what people call it.
        memory_gb: memory of the smallest model that is sold.
        memory_sizes_gb: memory of all models that are sold.
        reserved_gb: what the system keeps for itself.
        theoretical_gbps: 1e9 bytes a second, from the memory's data sheet.
        bandwidth_gbps: 1e9 bytes a second that all `cores` can read together.
        core_bandwidth_gbps: 1e9 bytes a second that one core can read.
        cores: how many are worth computing on.
        clock_ghz: their sustained clock.
        instruction_set: the best that it has for products of 8-bit integers.
        int8_macs_per_cycle: products of 8-bit integers that one core adds up in a cycle.
        float_macs_per_cycle: the same for float32.
        own_products: products of weights that our own kernels add up in a core's cycle, by the bits of a weight: with
            one position, and with many.
        products: whose products are planned with, where those of our own kernels are known.
        npu: its name and rate.
        providers: execution providers that exist for it.
        runnable: false where Voxrill's Python runtime cannot run. Then only a bundle is made for it.
        provider: provider by graph, or for `all`, in the words that --provider takes.
    """

    name: str
    memory_gb: ProfileValue[float]
    memory_sizes_gb: tuple[float, ...] = ()
    reserved_gb: ProfileValue[float]
    theoretical_gbps: ProfileValue[float] | None = None
    bandwidth_gbps: ProfileValue[float]
    core_bandwidth_gbps: ProfileValue[float]
    cores: ProfileValue[int]
    clock_ghz: ProfileValue[float]
    instruction_set: ProfileValue[InstructionSet]
    int8_macs_per_cycle: ProfileValue[float]
    float_macs_per_cycle: ProfileValue[float]
    own_products: ProfileValue[dict[str, tuple[float, float]]] | None = None
    products: Products = "own"
    npu: ProfileValue[str] | None = None
    providers: ProfileValue[tuple[str, ...]]
    runnable: bool = True
    provider: dict[str, str] = {}

    @property
    def figures(self) -> dict[str, ProfileValue[object]]:
        """Every figure by its name."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in values.items() if isinstance(value, ProfileValue)}

    @property
    def evidence(self) -> str:
        """The weakest evidence among the figures that a prediction of speed rests on."""
        used: list[ProfileValue[Any]] = [
            self.bandwidth_gbps,
            self.clock_ghz,
            self.int8_macs_per_cycle,
            self.float_macs_per_cycle,
        ]
        used += [self.own_products] if self.own_products and self.products == OWN else []
        order = ("assumed", "cited", "simulated", "emulated", "measured")
        return min((figure.evidence for figure in used), key=order.index)

    def planned_with(self, products: Products) -> Profile:
        """The same device, planned with onnxruntime's products of weights, or with those of our own kernels.

        Raises:
            ProfileError: how fast our own are there is not known.
        """
        if products == OWN and self.own_products is None:
            known = ", ".join(name for name in shipped_profiles() if read_profile(name).own_products)
            raise ProfileError(
                f"how fast our own products are on {self.name} is not known",
                f"Leave --products out, give a profile with own_products, or take one of: {known}",
            )
        return msgspec.structs.replace(self, products=products)

    def machine(self, memory_gb: float | None = None) -> Machine:
        """What the planner needs to know, for the model with `memory_gb` of memory (without it: the smallest)."""
        kind = self.instruction_set.value
        own = self.own_products.value if self.own_products and self.products == OWN else {}
        return Machine(
            memory=1e9 * ((memory_gb or self.memory_gb.value) - self.reserved_gb.value),
            bandwidth=1e9 * self.bandwidth_gbps.value,
            core_bandwidth=1e9 * self.core_bandwidth_gbps.value,
            cores=self.cores.value,
            clock_ghz=self.clock_ghz.value,
            int8_macs=self.int8_macs_per_cycle.value,
            float_macs=self.float_macs_per_cycle.value,
            dot_product=kind not in NO_DOT_PRODUCT,
            matrix_units=kind == "amx_int8",
            own={int(bits): rates for bits, rates in own.items()},
        )


def shipped_profiles() -> list[str]:
    """Short names of the devices that come with Voxrill."""
    return sorted(path.stem for path in PROFILES.glob("*.toml"))


def read_profile(name: str) -> Profile:
    """A shipped profile by its short name, or a profile file by its path.

    Raises:
        ProfileError: there is none, or it is not a valid profile.
    """
    path = PROFILES / f"{name}.toml" if name in shipped_profiles() else Path(name)
    if not os.path.exists(path):
        raise ProfileError(
            f"there is no device {name!r}", f"Give a profile file, this, or one of: {', '.join(shipped_profiles())}"
        )
    try:
        profile = read_toml(path, Profile, "")
    except DataError as error:
        raise ProfileError(error.message, error.remedy or _valid_keys(error.message)) from None
    _check(profile, path)
    return profile


def _valid_keys(error: str) -> str:
    """The keys that are valid where the error is: in a figure, or in the profile."""
    kind = ProfileValue if "`$." in error else Profile
    return f"Valid keys here: {', '.join(kind.__struct_fields__)}"


def _check(profile: Profile, path: Path) -> None:
    """Refuse figures that make no sense, and evidence without a source."""
    for name, figure in profile.figures.items():
        if isinstance(figure.value, int | float) and not (figure.value > 0 or name == "reserved_gb"):
            raise ProfileError(f"{path}: {name} is {figure.value}", "Give a number above 0")
        if figure.evidence != "assumed" and not figure.source:
            raise ProfileError(
                f"{path}: {name} is {figure.evidence!r} without a source",
                'Add source = "where it is from", or say evidence = "assumed"',
            )
    if profile.provider:
        from voxrill.devices.providers import find_provider  # it imports onnxruntime
    for provider in profile.provider.values():
        try:
            find_provider(provider)
        except DeviceError as error:
            raise ProfileError(f"{path}: {error.message}", error.remedy) from None
    if profile.reserved_gb.value >= profile.memory_gb.value:
        raise ProfileError(f"{path}: reserved_gb is not less than memory_gb", "Reserve less, or give more memory")
    _check_memory(profile, path)


def _check_memory(profile: Profile, path: Path) -> None:
    """Refuse a profile of this machine that has more memory than this machine."""
    here, largest = total_memory(), 1e9 * max(profile.memory_gb.value, *profile.memory_sizes_gb, 0.0)
    if profile.name == HERE and here is not None and largest > here:
        raise ProfileError(
            f"{path}: {gigabytes(largest)} of memory is more than the {gigabytes(here)} that this machine has",
            f"Give at most {here / 1e9:.2f} as memory_gb. If it is another device, give another name than {HERE!r}",
        )
