from pathlib import Path

import pytest

from models.contracts.errors import ConfigError, InputError
from quantize.events import Events, body_of, is_labelled, parted, read_events


@pytest.mark.parametrize(
    ("text", "head", "body"),
    [
        ("Jan  2 03:04:05 web-1 sshd[7]: hello\r\n", "Jan  2 03:04:05 web-1 sshd[7]", "sshd: hello"),
        ("<14>hello", "<14>", "hello"),
        ('{"message": "hello"}', "", '{"message": "hello"}'),
        ("hello", "", "hello"),
    ],
)
def test_an_event_is_its_header_as_it_stands_there_and_the_body_that_a_model_reads(
    text: str, head: str, body: str
) -> None:
    assert parted(text) == (head, body)
    assert body_of(text) == body


def test_a_line_is_an_event_and_a_blank_one_or_a_byte_order_mark_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n \t\ntwo \xff\x0bthree\nfour")

    assert read_events(path) == Events(["one", "two \ufffd\x0bthree", "four"])


def test_the_text_stands_at_the_path(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": {"b": "one\\ntwo"}}\nno json\n[]\n{"a": {"b": 1}}\n{"a": "b"}\n\n{"a": {"b": "three"}}\n')

    assert read_events(path, "a.b") == Events(["one\ntwo", "three"], without=4)


def test_a_file_without_events_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_events(path)
    path.write_bytes(b"\n")
    with pytest.raises(InputError, match="0 lines, and not one event"):
        read_events(path)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b'\n{"text": "a", "label": "b"}\nanything\n', True),
        (b'{"text": "a", "lable": "b"}\n{"text": "a", "label": "b"}\n', True),
        (b'{"txt": "a", "label": "b"}\n{"text": "a", "label": "b"}\n', True),
        (b'\xef\xbb\xbf{"text": "a", "label": "b"}\n', True),
        (b'{"message": "a"}\n{"text": "a", "label": "b"}\n', False),
        (b'["text", "label"]\n', False),
        (b"text label\n", False),
        (b"\xff\n", False),
        (b"", False),
    ],
)
def test_the_first_line_says_whether_a_file_means_to_be_labelled(
    tmp_path: Path, content: bytes, *, wanted: bool
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)

    assert is_labelled(path) is wanted
