"""Positions: how far a write reached, as an opaque text that a read can wait for."""

from __future__ import annotations

import base64
import binascii

import msgspec

from rebu_ray.records import BadRequest


class Position(msgspec.Struct, frozen=True):
    """Sequence number per partition."""

    seqs: dict[int, int]

    def encode(self) -> str:
        packed = msgspec.msgpack.encode(self.seqs)
        return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Position:
        """Raises BadRequest 400 for a text that no write answered."""
        try:
            packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            return cls(msgspec.msgpack.decode(packed, type=dict[int, int]))
        except (binascii.Error, msgspec.DecodeError, ValueError) as error:
            raise BadRequest(
                400, "invalid_position", "min_position is not a position: pass on the one that a write answered"
            ) from error
