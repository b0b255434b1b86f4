"""What the types refuse of a configuration, by the key's name, and what would have been right."""

from pathlib import Path

import pytest

from edge.config import Config, read_config
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gatway]\n", "unknown field `gatway`; wanted perhaps `gateway`"),
        ("[repeats]\nzzz = 1\n", "`zzz` - at `$.repeats`; wanted one of `window_events`, `window_s`"),
        (
            '[[sources]]\nkind = "syslog-udp"\nname = "a"\n[[sources]]\nkind = "syslog-tcp"\nname = "b"\nprot = 1\n',
            "unknown field `prot` - at `$.sources[1]`; wanted perhaps `port`",
        ),
        ('[[sources]]\nkind = "syslog-tpc"\nname = "a"\n', "wanted perhaps `syslog-tcp`"),
        ('[[sources]]\nname = "a"\n', "missing required field `kind` - at `$.sources[0]`; wanted one of `"),
        ('[[outputs]]\nkind = "zzz"\nname = "a"\n', "`terminal`"),
    ],
)
def test_a_mistaken_key_or_kind_is_told_with_the_nearest_or_the_known_ones(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        read_config(path)

    assert said in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_bytes(b"\xef\xbb\xbf[gateway]\n")

    assert read_config(path) == Config()


def test_only_where_no_file_is_one_is_to_be_written(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    for name, said in ((".", "wanted a file that we may read"), ("latin.toml", "wanted UTF-8"), ("gone", "edge init")):
        with pytest.raises(ConfigError) as caught:
            read_config(tmp_path / name)
        assert said in str(caught.value)
        assert ("edge init" in str(caught.value)) == (name == "gone")


@pytest.mark.parametrize(("key", "most"), [("threads", 256), ("context_tokens", 131_072)])
def test_what_would_take_memory_without_end_has_a_bound(tmp_path: Path, key: str, most: int) -> None:
    read(tmp_path, f"[model]\n{key} = {most}\n")
    with pytest.raises(ConfigError, match=rf"<= {most} - at `\$\.model\.{key}`"):
        read(tmp_path, f"[model]\n{key} = {most + 1}\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[[outputs]]\nkind = "terminal"\nname = "uplink"\n',
            "`outputs` and `dead_letters`: the name `uplink` is taken",
        ),
        ('[[sources]]\nkind = "stdin"\nname = "answers"\n', "`sources`: the name `answers` is taken by `[uplink]`"),
    ],
)
def test_the_ways_of_the_uplink_have_their_names_to_themselves(tmp_path: Path, text: str, said: str) -> None:
    read(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f"{text}[uplink]\n")

    assert said in str(caught.value)
