"""The first configuration of a centre."""

from pathlib import Path

from dataflows.running.first_config import write_first

SHIPPED_RELEASE = "soc-triage-large"


def write_config(path: Path, *, force: bool) -> None:
    """Write it, and make the folder it goes to.

    Raises:
        ConfigError: there is one already, or the place cannot be written.
    """
    write_first(path, "central", SHIPPED_RELEASE, force=force)
