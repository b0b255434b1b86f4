"""Scalars that carry their unit and their range in the type."""

from typing import Annotated, NewType

from msgspec import Meta

EventId = NewType("EventId", str)
"""`<gateway>~<origin>.<position>`: names one record of one source, the same after any crash.

Where senders name their records themselves, source, topic and that name stand for the position. What no gateway saw,
but the centre or a command, has no gateway in front.
"""

_NAME = Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")

Name = Annotated[str, _NAME]
"""A name an operator types: letters, digits, `_`, `.` and `-`, 64 characters at most."""

LabelName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.?-]{0,63}$")]
"""A name, in which data of others may have a `?`: labels are called as the data calls them."""

FactName = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_]{2,31}$")]
"""What a fact about an asset is called. Three letters at least: as `name:value` none reads as an address or a time."""

Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=0)]
Number = Annotated[int, Meta(ge=1)]
"""Counts releases and policies; a higher number is newer."""

UnixMillis = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]
"""Milliseconds since 1970-01-01T00:00:00Z, to the end of the year 9999, by the clock that the field's name says."""

Port = Annotated[int, Meta(ge=0, le=65535)]
"""0 asks the kernel for a free one."""
