"""Python values as messages. The tag of a message says which kind it is: 8 bytes of ASCII.

    str                              UTF-8      tag "utf-8"
    bytes, bytearray, memoryview     as it is   tag 0; comes back as bytes
    what json can say                JSON       tag "json"; tuples come back as lists,
                                                and keys of a dict as str
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer


def _tag(word: bytes) -> int:
    return int.from_bytes(word.ljust(8, b"\0"), "little")


BYTES = 0
UTF_8 = _tag(b"utf-8")
JSON = _tag(b"json")


def encode(message: Any) -> tuple[Buffer, int]:
    """A message's payload and tag. TypeError, ValueError: json cannot say it."""
    if isinstance(message, str):
        return message.encode(), UTF_8
    if isinstance(message, (bytes, bytearray, memoryview)):
        return message, BYTES
    text = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(), JSON


def decode(payload: Buffer, tag: int) -> Any:
    """The message of a payload and a tag; bytes, if the tag says nothing else. ValueError: it is
    not what the tag says."""
    if tag == UTF_8:
        return str(payload, "utf-8")
    if tag == JSON:
        return json.loads(bytes(payload))
    return bytes(payload)
