"""A prefilled system prompt on disk: the backbone's state after it, which is mapped back instead of computed.

In: a conversation before its first turn. Out: one file, and from it a conversation that continues as the first would.
The file belongs to one bundle and holds its hash; another precision is another bundle. Layout: a magic of 8 bytes, the
header's SHA-256, its length as 8 bytes little-endian, the header (JSON), and each tensor at a multiple of 64
bytes. The header holds the SHA-256 of all tensors in their order: without it, a model would answer from a state that a
failing disk has changed, and nobody would know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.atomic_write import atomic_write
from voxrill.runtime.engine.conversation import Conversation, Output
from voxrill.runtime.errors import DataError, UsageError

if TYPE_CHECKING:
    from voxrill.runtime.engine.engine import Engine

T = TypeVar("T")

Array = NDArray[Any]

MAGIC = b"voxrill2"
_DIGEST = hashlib.sha256().digest_size
_HEADER_AT = len(MAGIC) + _DIGEST + 8
_ALIGNMENT = 64
_REMEDY = "Make it with: voxrill snapshot -o FILE"


class _Tensor(msgspec.Struct):
    """A tensor of the file: its shape, the byte of the file at which it begins, and its type."""

    shape: tuple[int, ...]
    offset: int
    dtype: Annotated[str, msgspec.Meta(pattern="^(float32|int8)$")] = "float32"

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape))


class _Header(msgspec.Struct):
    bundle: str
    system: str
    positions: int
    sha256: str
    tensors: dict[str, _Tensor]
    attached: msgspec.Raw = msgspec.Raw(b"[]")


def save_snapshot(model: Engine, system: str | None, path: Path, attached: Any = ()) -> int:
    """Prefill a system prompt (None: the family's own for talking) and write the state after it.

    Returns the positions that it takes. `attached` may be anything that JSON holds; `read_attached` reads it back.

    Raises:
        ContextFull: it does not fit into the model's context.
        UsageError: the file cannot be written.
    """
    conversation = model.conversation(system=system)
    conversation.prefill_prompt()
    content = {name: np.ascontiguousarray(tensor) for name, tensor in conversation.context.content().items()}
    positions = conversation.context.positions
    kept = msgspec.Raw(msgspec.json.encode(attached))
    header = _Header(model.bundle.sha256, conversation.system, positions, _hash(content.values()), {}, kept)
    for name, tensor in content.items():
        header.tensors[name] = _Tensor(tensor.shape, 0, tensor.dtype.name)
    _place(header)
    try:
        with atomic_write(path) as partial:
            _write(partial, header, content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "Give another file, or make room") from None
    return positions


def _place(header: _Header) -> None:
    """Give every tensor its place behind the header. The places are in the header, so its length is settled first."""
    for tensor in header.tensors.values():
        tensor.offset = 1 << 40  # as many digits as any offset has
    at = _HEADER_AT + len(msgspec.json.encode(header))
    for tensor in header.tensors.values():
        tensor.offset = -(-at // _ALIGNMENT) * _ALIGNMENT
        at = tensor.offset + tensor.size


def _write(path: Path, header: _Header, content: dict[str, Array]) -> None:
    encoded = msgspec.json.encode(header)
    with path.open("wb") as file:
        file.write(MAGIC + hashlib.sha256(encoded).digest() + len(encoded).to_bytes(8, "little") + encoded)
        for name, tensor in content.items():
            file.seek(header.tensors[name].offset)
            file.write(tensor.tobytes())


def open_snapshot(model: Engine, path: Path, output: Output = "both") -> Conversation:
    """A conversation with the system prompt of a snapshot, which needs no prefill.

    Raises:
        DataError: it is not a snapshot, was cut short or changed, or holds another state than its prompt's.
        UsageError: it is of another bundle.
        ContextFull: it does not fit.
    """
    try:
        mapped = np.memmap(path, np.uint8, "r")
        header = _read_header(mapped)
        content = {name: _tensor(mapped, tensor) for name, tensor in header.tensors.items()}
        if _hash(content.values()) != header.sha256:
            raise ValueError("it was changed")
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise DataError(f"{path} is not a snapshot that can be read ({error})", _REMEDY) from None
    if header.bundle != model.bundle.sha256:
        raise UsageError(f"{path} was made with another bundle than this {model.manifest.name}", _REMEDY)
    conversation = model.conversation(system=header.system, output=output)
    try:
        conversation.restore_prompt(content)
    except (KeyError, ValueError) as error:  # its hashes are right, so it was forged
        raise DataError(f"{path} does not hold the state after its own prompt ({error})", _REMEDY) from None
    return conversation


def read_attached(path: Path, kind: type[T]) -> T:
    """What was attached to a snapshot.

    Raises:
        DataError: it is not a snapshot, or something else is attached.
    """
    try:
        return msgspec.json.decode(_read_header(np.memmap(path, np.uint8, "r")).attached, type=kind)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise DataError(f"{path} is not a snapshot that can be read ({error})", _REMEDY) from None


def _read_header(mapped: NDArray[np.uint8]) -> _Header:
    if bytes(mapped[: len(MAGIC)]) != MAGIC:
        raise ValueError("it does not begin as one of this Voxrill")
    length = int.from_bytes(bytes(mapped[_HEADER_AT - 8 : _HEADER_AT]), "little")
    header = bytes(mapped[_HEADER_AT : _HEADER_AT + length])
    if hashlib.sha256(header).digest() != bytes(mapped[len(MAGIC) : len(MAGIC) + _DIGEST]):
        raise ValueError("it was cut short or changed")
    return msgspec.json.decode(header, type=_Header)


def _hash(tensors: Iterable[Array]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.data)
    return digest.hexdigest()


def _tensor(mapped: NDArray[np.uint8], tensor: _Tensor) -> Array:
    values: Array = mapped[tensor.offset : tensor.offset + tensor.size].view(tensor.dtype).reshape(tensor.shape)
    return values
