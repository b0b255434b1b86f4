"""Four errors, one per thing a caller can do next. Everything we raise is one of these.

A message names which thing; what was found and what was wanted; what we did about it.
"""


class HeadwaterError(Exception):
    """The root; nothing raises it by itself."""


class InputError(HeadwaterError):
    """One record is bad: put it with the dead letters and go on."""


class UnavailableError(HeadwaterError):
    """Something outside is away or full: back off and try the same thing again."""


class UntrustedError(HeadwaterError):
    """A model or a message is not what was promised: keep what is running."""


class ConfigError(HeadwaterError):
    """What the operator wrote cannot work: print it and exit 2."""
