"""What the measuring program and its two processes say to each other.

A frame is one line of JSON; where it has ``"bytes"``, that many raw bytes follow.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO

Words = dict[str, Any]


def write_frame(stream: BinaryIO, words: Words, data: bytes = b"") -> None:
    """Sends a frame.

    Raises:
        OSError: Nobody reads any more.
    """
    stream.write(json.dumps({**words, "bytes": len(data)}).encode() + b"\n" + data)
    stream.flush()


def read_frame(stream: BinaryIO) -> tuple[Words, bytes] | None:
    """The next frame, ``None`` when the other side is gone."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    words: Words = json.loads(line)
    data = stream.read(words["bytes"])
    return (words, data) if len(data) == words["bytes"] else None
