"""A jar from a repository of Maven's, as Maven is set up here, by its digest."""

import shutil
import subprocess
from pathlib import Path

from models.contracts.errors import ConfigError, InputError, UnavailableError
from models.release_file import digest_of

_TIMEOUT_S = 900.0


def fetch(artifact: str, sha256: str, to: Path) -> Path:
    """Return the jar of `artifact`, a `group:artifact:version`, in the folder `to`.

    Raises:
        ConfigError: Maven is not installed.
        InputError: what was fetched has another digest.
        UnavailableError: it cannot be fetched.
    """
    if shutil.which("mvn") is None:
        raise ConfigError(f"{artifact}: fetched by Maven, which is not installed; on Debian: apt-get install maven")
    command = ["mvn", "-q", "-B", "--strict-checksums", "dependency:copy", f"-Dartifact={artifact}:jar"]
    try:
        # Nowhere in a project of somebody's: its settings would be taken for ours.
        done = subprocess.run(
            [*command, f"-DoutputDirectory={to}"],
            cwd=to, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{artifact}: not fetched within {_TIMEOUT_S:g} s; try again") from error
    if done.returncode:
        said = " ".join(done.stdout.split())[:400]
        raise UnavailableError(f"{artifact}: Maven cannot fetch it: {said}")
    jars = list(to.glob("*.jar"))
    if len(jars) != 1 or digest_of(jars[0]) != sha256:
        found = digest_of(jars[0]) if len(jars) == 1 else f"{len(jars)} jars"
        raise InputError(f"{artifact}: `base.sha256` is {sha256}, and what was fetched {found}; refused it")
    return jars[0]
