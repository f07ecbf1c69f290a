"""What the model remembers of a session's items, so that items can be added, deleted and cut after they were told.

In: the turns that the conversation has answered, items that the client adds, deletes or cuts. Out: the conversation
told anew, where one of its turns changed. Belongs to the worker's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from voxrill.runtime.engine.context import HeardSound, Piece, Spoken, Tokens
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.tokenizer import Tokenizer


@dataclass(frozen=True)
class Said:
    """What one role said in one go: the items that tell it, and its pieces, the marks of its turn included."""

    items: tuple[str, ...]
    role: str
    pieces: tuple[Piece, ...]


class History:
    """All that a conversation remembers, in order.

    Args:
        tokenizer: knows the marks of turns.
        frame_ms: milliseconds of a frame of speech.
    """

    def __init__(self, tokenizer: Tokenizer, frame_ms: float) -> None:
        self._openings = {Tokens(tuple(ids)): role for role, ids in tokenizer.openings.items()}
        self._closing = Tokens(tuple(tokenizer.closing))
        self._frame_ms = frame_ms
        self._said: list[Said] = []

    def answered(self, pieces: Sequence[Piece], asked: tuple[str, ...], answer: str) -> None:
        """A turn was answered. pieces: of the whole turn. asked, answer: items of the question and the answer."""
        self._said += self._parts(pieces, asked, answer)

    def tell(self, one: Said, before: str | None, most: int) -> None:
        """The client adds what someone said, after the item `before`; at the end, if that is not remembered.

        The oldest is forgotten when all of it takes more than `most` positions.
        """
        places = [place for place, said in enumerate(self._said) if before in said.items]
        place = 0 if before == "root" else places[-1] + 1 if places else len(self._said)
        self._said.insert(place, one)
        while len(self._said) > 1 and sum(map(_positions, self._said)) > most:
            del self._said[0]

    def delete(self, item: str) -> None:
        """Forget an item. What was asked together is forgotten when all of it is deleted."""
        found = [said for said in self._said if item in said.items]
        for said in found:
            left = tuple(name for name in said.items if name != item)
            place = self._said.index(said)
            self._said[place : place + 1] = [replace(said, items=left)] if left else []

    def cut(self, item: str, milliseconds: int, decode: Callable[[list[int]], str]) -> str | None:
        """Keep the first milliseconds of an answer; the text of what is left, None if it is not remembered."""
        for place, said in enumerate(self._said):
            if item in said.items and said.role == "assistant":
                kept = self._first(said.pieces, milliseconds)
                self._said[place] = replace(said, pieces=kept)
                # The first and the last piece are the marks of the turn.
                return decode([token for piece in kept[1:-1] if isinstance(piece, Tokens) for token in piece.ids])
        return None

    def tell_all(self, conversation: Conversation) -> None:
        """Have the conversation remember this, and nothing else."""
        conversation.retell([[piece for said in turn for piece in said.pieces] for turn in self._turns()])

    def keep(self, turns: int) -> None:
        """Keep the last turns: the conversation has forgotten those before."""
        remembered = self._turns()
        self._said = [said for turn in remembered[max(0, len(remembered) - turns) :] for said in turn]

    def find(self, item: str) -> tuple[Piece, ...]:
        """The pieces of an item; empty if it is not remembered."""
        return next((said.pieces for said in self._said if item in said.items), ())

    def _turns(self) -> list[list[Said]]:
        """Grouped into turns: each begins with what the user said, or with the first thing said at all."""
        turns: list[list[Said]] = []
        for said in self._said:
            if said.role == "user" or not turns:
                turns.append([])
            turns[-1].append(said)
        return turns

    def _parts(self, pieces: Sequence[Piece], asked: tuple[str, ...], answer: str) -> list[Said]:
        roles = {
            place: self._openings[piece]
            for place, piece in enumerate(pieces)
            if isinstance(piece, Tokens) and piece in self._openings
        }
        items = {"user": asked, "assistant": (answer,)}
        ends = [*list(roles)[1:], len(pieces)]
        # A question that is no item was put by the server itself: only its answer is remembered.
        return [
            Said(items[role], role, tuple(pieces[start:end]))
            for (start, role), end in zip(roles.items(), ends, strict=True)
            if items.get(role)
        ]

    def _first(self, pieces: Sequence[Piece], milliseconds: int) -> tuple[Piece, ...]:
        """An answer up to the last frame that lies wholly in its first milliseconds: what follows was not heard."""
        left, end = int(milliseconds / self._frame_ms), 1
        for place, piece in enumerate(pieces):
            if isinstance(piece, Spoken):
                left -= piece.codes.shape[1]
                if left < 0:
                    return (*pieces[:end], self._closing)
                end = place + 1
        return tuple(pieces)


def _positions(said: Said) -> int:
    return sum(_length(piece) for piece in said.pieces)


def _length(piece: Piece) -> int:
    if isinstance(piece, Tokens):
        return len(piece.ids)
    return len(piece.rows) if isinstance(piece, HeardSound) else piece.codes.shape[1]
