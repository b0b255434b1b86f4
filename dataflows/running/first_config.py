"""Writes a first configuration where there is none."""

from importlib import resources
from pathlib import Path
from string import Template

from models.contracts.errors import ConfigError
from models.release_file import digest_of, release_path


def write_first(path: Path, package: str, release: str, *, force: bool) -> None:
    """Write the template of a package with a shipped release filled in, and make the folder it goes to.

    Raises:
        ConfigError: there is one already, or the place cannot be written.
    """
    template = resources.files(package).joinpath("template.toml").read_text(encoding="utf-8")
    text = Template(template).substitute(release=release, sha256=digest_of(release_path(release)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        if not path.exists():  # what is in the way is no file of that name, but something else where a folder should be
            raise ConfigError(f"{path.parent}: is no folder; give another --path") from error
        raise ConfigError(f"{path}: exists; kept it. Give another --path, or --force to overwrite") from error
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}; look at its folder's owner, or give another --path"
        ) from error
