"""What the types refuse of a configuration, by the key's name."""

from pathlib import Path

import pytest

from edge.config import read_config
from models.contracts.errors import ConfigError


def read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(text)
    read_config(path)


@pytest.mark.parametrize("digest", ["abc", "ab" * 33, "g" * 64])
def test_a_digest_that_is_none_is_an_error_of_the_configuration(tmp_path: Path, digest: str) -> None:
    with pytest.raises(ConfigError, match=r"edge\.toml: .* at `\$\.model\.sha256`"):
        read(tmp_path, f'[model]\nsha256 = "{digest}"\n')


@pytest.mark.parametrize("digest", ["", "ab" * 32, "AB" * 32])
def test_a_digest_is_written_in_either_case_or_not_at_all(tmp_path: Path, digest: str) -> None:
    read(tmp_path, f'[model]\nsha256 = "{digest}"\n')
