"""The first configuration shows the defaults, and no key that does not exist."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from central.config import Config, OpenAiEngine, ReleaseEngine, VllmEngine, read_config
from central.init import write_config


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    path = tmp_path / "central.toml"
    write_config(path, force=False)
    return path.read_text().splitlines()


def read(folder: Path, lines: list[str]) -> Config:
    path = folder / "changed.toml"
    path.write_text("\n".join(lines))
    return read_config(path)


def is_key(line: str) -> bool:
    return line.startswith("[") or (" = " in line.partition("#")[0] and not line.startswith(" "))


def test_as_it_is_written_it_says_the_defaults(tmp_path: Path, lines: list[str]) -> None:
    config = read(tmp_path, lines)

    assert isinstance(config.engine, ReleaseEngine)
    assert replace(config, engine=Config().engine) == Config()


def test_every_line_that_is_commented_out_is_a_key_that_exists(tmp_path: Path, lines: list[str]) -> None:
    bare = [line.removeprefix("# ") for line in lines]
    # One key stands above all sections.
    top = [line for line in bare if line.startswith("policy_file")]
    config = read(tmp_path, [*top, *(line for line in bare if is_key(line) and line not in top)])

    assert config.policy_file
    assert config.deliver.index is not None
    assert config.deliver.siem is not None
    assert (len(config.lookups), len(config.enrich), len(config.incidents)) == (1, 1, 1)


@pytest.mark.parametrize(("kind", "type_"), [("openai", OpenAiEngine), ("vllm", VllmEngine)])
def test_every_other_engine_is_one_that_exists(kind: str, type_: type, tmp_path: Path, lines: list[str]) -> None:
    indented = [line.removeprefix("#   ") for line in lines if line.startswith("#   ")]
    begin = indented.index(f'kind = "{kind}"') - 1
    end = next((at for at in range(begin + 1, len(indented)) if indented[at] == "[engine]"), len(indented))

    assert isinstance(read(tmp_path, indented[begin:end]).engine, type_)
