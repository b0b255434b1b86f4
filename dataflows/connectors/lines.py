"""Bytes to lines with their offsets, bounded. No I/O."""

_ENDS = b"\r\n\0"


class LineCutter:
    """Cuts one stream into records, one a line. The same bytes give the same records, however they come in pieces.

    A line longer than `max_bytes` comes one byte longer than that, which says that it was cut. Blank lines are none.
    """

    __slots__ = ("_max_bytes", "_passed", "_rest", "offset")

    def __init__(self, max_bytes: int, offset: int = 0) -> None:
        self._max_bytes = max_bytes
        self._rest = b""  # of the line that has begun: what of it is kept
        self._passed = 0  # and how many bytes more there were
        self.offset = offset  # where that line begins: from here on nothing has been handed out

    def feed(self, piece: bytes) -> list[tuple[int, bytes]]:
        """Return the lines that this piece completes, each with its offset."""
        lines: list[tuple[int, bytes]] = []
        at = 0
        while (feed := piece.find(b"\n", at)) >= 0:
            self._end(self._rest + piece[at:feed] if self._rest else piece[at:feed], lines)
            at = feed + 1
        self._rest += piece[at:] if at else piece
        over = len(self._rest) - self._max_bytes - 1
        if over > 0:
            self._rest = self._rest[: self._max_bytes + 1]
            self._passed += over
        return lines

    def flush(self) -> list[tuple[int, bytes]]:
        """Return what the end of the stream completes: a last line without its line feed."""
        lines: list[tuple[int, bytes]] = []
        if self._rest:
            self._end(self._rest, lines)
            self.offset -= 1  # there was no line feed
        return lines

    def _end(self, line: bytes, lines: list[tuple[int, bytes]]) -> None:
        record = line.rstrip(_ENDS) if len(line) <= self._max_bytes else line[: self._max_bytes + 1]
        if record:
            lines.append((self.offset, record))
        self.offset += len(line) + self._passed + 1
        self._rest, self._passed = b"", 0
