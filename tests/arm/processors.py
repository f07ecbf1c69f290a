"""The emulated processors, and how a test sees that a program really runs as one of them."""

from __future__ import annotations

from dataclasses import dataclass

from voxrill.devices.profile import NO_DOT_PRODUCT, InstructionSet


@dataclass(frozen=True)
class Processor:
    """A processor that qemu-user knows.

    name: its name in qemu; where: devices that have it; instruction_set: what `voxrill plan --device this` must say;
    has, lacks: features of the Arm architecture, as the kernel names them; sound: how far the INT8 codec's sound may be
    from x86's, as a share of the RMS of x86's.
    """

    name: str
    where: str
    instruction_set: InstructionSet
    has: frozenset[str]
    lacks: frozenset[str]
    sound: float = 0.1

    @property
    def dot_product(self) -> bool:
        """Whether onnxruntime has a 4-bit kernel for 8-bit activations for it."""
        return self.instruction_set not in NO_DOT_PRODUCT


_DOT, _I8MM = frozenset({"asimddp"}), frozenset({"asimddp", "i8mm", "sve2"})
_SME = frozenset({"sme"})

# Measured: INT8 within 0.05 of x86's. x86's own numbers are 0.07 from float32's. The codec's sound is 0.067 away, since
# a step of rounding turns a phase; x86's is 0.17 from float32's. With SME onnxruntime uses kernels that round each row
# of activations by itself: 0.07 from x86's, and half of x86's distance from float32. The sound is then 0.23 away, and
# nearer to float32's.
PROCESSORS = (
    Processor("cortex-a76", "Pi 5, RK3588", "neon_dotprod", has=_DOT, lacks=frozenset({"i8mm", "sve"})),
    Processor("cortex-a72", "Pi 4", "neon", has=frozenset({"asimd"}), lacks=_DOT | _I8MM),
    Processor("neoverse-n2", "recent phones", "neon_i8mm", has=_I8MM, lacks=_SME),
    Processor("max", "all that qemu knows", "neon_i8mm", has=_I8MM | _SME, lacks=frozenset(), sound=0.3),
)
