import stat
from pathlib import Path

import pytest

from models.contracts.errors import ConfigError, InputError, UnavailableError
from models.release_file import digest_of
from quantize.maven import fetch

ARTIFACT = "an.org:an-encoder:1.0"


@pytest.fixture
def mvn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that is Maven to whoever looks for it; each test writes what it does."""
    folder = tmp_path / "bin"
    folder.mkdir()
    path = folder / "mvn"
    path.touch(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return path


def copies(mvn: Path, *jars: Path) -> None:
    mvn.write_text(f'#!/bin/sh\ncp {" ".join(map(str, jars))} "${{6#-DoutputDirectory=}}"\n', encoding="utf-8")


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    path = tmp_path / "an-encoder-1.0.jar"
    path.write_bytes(b"PK")
    return path


@pytest.fixture
def to(tmp_path: Path) -> Path:
    path = tmp_path / "fetched"
    path.mkdir()
    return path


def test_a_jar_with_the_digest_that_was_promised_is_taken(mvn: Path, jar: Path, to: Path) -> None:
    copies(mvn, jar)

    assert fetch(ARTIFACT, digest_of(jar), to) == to / jar.name


def test_a_jar_with_another_digest_is_refused_with_both(mvn: Path, jar: Path, to: Path) -> None:
    copies(mvn, jar)

    with pytest.raises(InputError) as refused:
        fetch(ARTIFACT, "ab" * 32, to)

    assert str(refused.value) == (
        f"{ARTIFACT}: `base.sha256` is {'ab' * 32}, and what was fetched {digest_of(jar)}; refused it"
    )


def test_what_maven_says_when_it_fails_is_handed_on(mvn: Path, to: Path) -> None:
    mvn.write_text("#!/bin/sh\necho '[ERROR] no such artifact'\nexit 1\n", encoding="utf-8")

    with pytest.raises(UnavailableError) as refused:
        fetch(ARTIFACT, "ab" * 32, to)

    assert str(refused.value) == f"{ARTIFACT}: Maven cannot fetch it: [ERROR] no such artifact"


def test_where_maven_is_not_installed_it_is_asked_for(to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(to))

    with pytest.raises(ConfigError, match="Maven, which is not installed; on Debian: apt-get install maven"):
        fetch(ARTIFACT, "ab" * 32, to)
