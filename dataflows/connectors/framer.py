"""A TCP stream to syslog messages (RFC 6587): octet counting or line feeds, as it began. Bounded, and no I/O."""

import re

_FRAME_MAX_BYTES = 1 << 20  # a longer one is no syslog message: the header is broken, or the sender is
_HEADER = re.compile(rb"([1-9]\d{0,8}) (?=<\d{1,3}>)")  # RFC 6587, 3.4.1: what is counted begins with a priority
_HEADER_BEGUN = re.compile(rb"[1-9]\d{0,8}(?: (?:<\d{0,3})?)?")
_ENDS = b"\r\n\0"


class Framer:
    """Cuts one stream into records. The same bytes give the same records, however they come in pieces.

    A message that begins with a count, a blank and a priority is counted; any other ends with its line. A stream whose
    first message is a line has only lines: whoever gets a line feed into a message could otherwise begin the next with
    a count, and hide what the sender says after it. A record longer than `max_bytes` comes one byte longer than that,
    which says that it was cut; the rest of it is passed over.
    """

    __slots__ = ("_counts", "_lines", "_max_bytes", "_pass_bytes", "_pass_line", "_rest", "broken")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = b""
        self._pass_bytes = 0  # of a counted message that was cut
        self._pass_line = False
        self._counts = False  # this sender has counted before
        self._lines = False  # its first message was a line
        self.broken = ""  # why nothing after this can be read; the connection is of no more use

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the records that are complete with this piece."""
        stream = self._rest + piece if self._rest else piece
        records: list[bytes] = []
        at, end = 0, len(stream)
        while at < end and not self.broken:
            if self._pass_bytes:
                passed = min(self._pass_bytes, end - at)
                self._pass_bytes -= passed
                at += passed
            elif self._pass_line:
                feed = stream.find(b"\n", at)
                self._pass_line = feed < 0
                at = end if feed < 0 else feed + 1
            elif stream[at] in _ENDS:
                at += 1
            else:
                taken = self._take(stream, at, records)
                if taken == at:
                    break
                at = taken
        self._rest = b"" if self.broken else stream[at:]
        return records

    def flush(self) -> list[bytes]:
        """Return what the end of the stream completes: a last line without its line feed."""
        if not self._rest or (not self._lines and _HEADER.match(self._rest)):
            return []
        if self._counts and _HEADER_BEGUN.fullmatch(self._rest):
            return []
        rest, self._rest = self._rest, b""
        return [rest.rstrip(_ENDS)[: self._max_bytes + 1]]

    @property
    def pending(self) -> bool:
        """Whether a message has begun and has not ended."""
        return bool(self._rest)

    def _take(self, stream: bytes, at: int, records: list[bytes]) -> int:
        """Take one message at `at`; return where the next begins, or `at` where more bytes are needed."""
        begun = None if self._lines else _HEADER_BEGUN.match(stream, at)
        if begun:
            header = _HEADER.match(stream, at)
            if header:
                return self._take_counted(stream, header, records)
            if begun.end() == len(stream):
                return at
            if self._counts:
                self.broken = f"a count and a message were due, found {stream[at : begun.end() + 1]!r}"
                return len(stream)
        feed = stream.find(b"\n", at, at + self._max_bytes + 1)
        if feed < 0 and len(stream) - at <= self._max_bytes:
            return at
        self._lines = not self._counts
        if feed >= 0:
            records.append(stream[at:feed].rstrip(_ENDS))
            return feed + 1
        records.append(stream[at : at + self._max_bytes + 1])
        self._pass_line = True
        return at + self._max_bytes + 1

    def _take_counted(self, stream: bytes, header: re.Match[bytes], records: list[bytes]) -> int:
        self._counts = True
        count = int(header[1])
        if count > _FRAME_MAX_BYTES:
            self.broken = f"a message of {count} bytes was announced, {_FRAME_MAX_BYTES} are the most"
            return len(stream)
        begin = header.end()
        kept = min(count, self._max_bytes + 1)
        if len(stream) - begin < kept:
            return header.start()
        record = stream[begin : begin + kept]
        records.append(record.rstrip(_ENDS) if kept == count else record)
        self._pass_bytes = count - kept
        return begin + kept
