import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from central.ask import ask, asked
from central.deliveries.warehouse import WarehouseCarrier
from central.warehouse.compaction import compact_all
from central.warehouse.examples import EXAMPLES
from central.warehouse.storage import open_storage
from central.warehouse.tables import ANSWERS
from models.contracts.answer import Answer
from models.contracts.errors import ConfigError, InputError, UnavailableError
from models.contracts.wire import encode
from tests.conftest import ROOT
from tests.fakes.verdicts import verdict
from tests.fakes.warehouse import rows


def answer(**changed: Any) -> Answer:
    return Answer(
        **{
            "id": "o.1",
            "text": "Failed password for root",
            "label": "benign",
            "by": "ada",
            "at_ms": 1_700_000_100_000,
            "revision": 1_000_000,
            "model_label": "critical",
            "confidence": 0.6,
            "route": "review",
            "release": "soc-triage-1",
            "policy": 1,
            "source": "hosts",
        }
        | changed
    )


@pytest.fixture(params=["as delivered", "compacted"])
def warehouse(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Of one gateway's three doubts two were answered; a person looked at both answers, at one of them twice."""
    url = str(tmp_path / "warehouse")
    at = iter((1.0, 4.5))
    carrier = WarehouseCarrier(url, clock=lambda: next(at))
    doubtful = {"route": "escalated", "confidence": 0.4, "gateway": "gw-1", "release": "small-1"}
    carrier.deliver(
        [
            encode(verdict(id="a", label="suspicious", **doubtful)),
            encode(verdict(id="b", label="critical", **doubtful)),
            encode(verdict(id="c", label="benign", **doubtful)),
            encode(verdict(id="d", label="benign", gateway="gw-1", release="small-1")),
            encode(verdict(id="e", label="benign", gateway="gw-2", release="small-1")),
        ]
    )
    central = {"revision": 1000, "gateway": "gw-1", "release": "large-1"}
    carrier.deliver([encode(verdict(id=id_, label="critical", **central)) for id_ in "ab"])
    people = WarehouseCarrier(url, ANSWERS, clock=lambda: 9.0)
    people.deliver([encode(answer(id="a", label="benign")), encode(answer(id="b", label="benign"))])
    a_day_later = answer(id="b", label="critical", revision=1_000_001, at_ms=1_700_100_000_000)
    people.deliver([encode(a_day_later)])
    if request.param == "compacted":
        list(compact_all(open_storage(url)))
    return url


def test_verdicts_are_what_stands_and_history_is_what_was_said(warehouse: str) -> None:
    assert rows(warehouse, "SELECT id, label, release FROM verdicts ORDER BY id") == [
        ("a", "critical", "large-1"),
        ("b", "critical", "large-1"),
        ("c", "benign", "small-1"),
        ("d", "benign", "small-1"),
        ("e", "benign", "small-1"),
    ]
    assert rows(warehouse, "SELECT count(*) FROM history") == [(7,)]


def test_an_escalation_has_both_labels_and_how_long_the_answer_took(warehouse: str) -> None:
    sql = (
        "SELECT id, gateway_label, central_label, changed, seconds, gateway_release, central_release "
        "FROM escalations ORDER BY id"
    )

    assert rows(warehouse, sql) == [
        ("a", "suspicious", "critical", True, 3.5, "small-1", "large-1"),
        ("b", "critical", "critical", False, 3.5, "small-1", "large-1"),
        ("c", "benign", None, None, None, "small-1", None),
    ]


def test_of_a_persons_answers_the_last_stands_though_it_came_on_another_day(warehouse: str) -> None:
    assert rows(warehouse, "SELECT day, id, label, model_label, agrees FROM answers ORDER BY id") == [
        ("2023-11-14", "a", "benign", "critical", False),
        ("2023-11-16", "b", "critical", "critical", True),
    ]


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (0, [("hosts", 1, 2)]),
        (1, [("2023-11-14", "gw-1", 0.75, 4), ("2023-11-14", "gw-2", 0.0, 1)]),
        (2, [("small-1", "large-1", 0.5, 2)]),
    ],
)
def test_the_examples_of_the_help_answer_what_they_say(warehouse: str, number: int, wanted: list[Any]) -> None:
    queries = [paragraph for paragraph in EXAMPLES.split("\b\n") if "SELECT" in paragraph]

    assert rows(warehouse, queries[number].partition(":\n")[2]) == wanted


def test_a_pipe_gets_lines_with_tabs_and_no_text_breaks_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    WarehouseCarrier(str(tmp_path)).deliver([encode(verdict(text="a\tb\n\x1b[2J", host=None))])

    ask("SELECT id, text, host, received_at, probabilities['critical'] AS p, fields FROM verdicts", str(tmp_path))

    assert capsys.readouterr().out.splitlines() == [
        "id\ttext\thost\treceived_at\tp\tfields",
        "o.1\ta\\tb\\n\\x1b[2J\t\t2023-11-14T22:13:20.123000Z\t0.95\t{}",
    ]


def test_json_is_an_object_a_line_with_maps_and_nothing_that_steers_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    payload = encode(verdict(text="\x9b2J\u202e", fields={"user": ("root", "ada")}, context={"owner": "ops"}))
    WarehouseCarrier(str(tmp_path)).deliver([payload])

    ask("SELECT text, fields, context, 'nan'::DOUBLE AS n, 12::HUGEINT AS h FROM verdicts", str(tmp_path), as_json=True)

    (line,) = capsys.readouterr().out.splitlines()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {
        "text": "\x9b2J\u202e",
        "fields": {"user": ["root", "ada"]},
        "context": {"owner": "ops"},
        "n": None,
        "h": 12,
    }


def test_a_terminal_gets_a_table_of_the_first_rows(tmp_path: Path) -> None:
    code = (
        "from central.ask import ask; import sys; "
        "ask('SELECT range AS number, chr(27) || chr(7) AS text FROM range(501)', sys.argv[1])"
    )
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=follower, stderr=subprocess.PIPE, text=True
    )
    os.close(follower)
    shown = b""
    try:
        while more := os.read(leader, 65536):
            shown += more
    except OSError:  # the child has closed its side
        pass
    finally:
        os.close(leader)
    told = child.communicate()[1]

    assert b"number" in shown
    assert b"499" in shown
    assert b"500" not in shown
    assert b"\\x1b\\x07" in shown
    assert "headwater: the first 500 rows; a pipe gets all of them" in told


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELCT 1", 'syntax error at or near "SELCT"'),
        ("SELECT nope FROM verdicts", '"nope" not found'),
        ("SELECT 1; SELECT 2", "wanted one query"),
        ("", "wanted one query"),
        ("DROP VIEW verdicts", "wanted one query"),
        ("CREATE TABLE t AS SELECT 1", "wanted one query"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO '{url}/x.csv'", "wanted one query"),
        ("COPY (SELECT 1) TO '{url}/x.csv'", "wanted one query"),
        ("ATTACH '{url}/x.db'", "wanted one query"),
        ("SET memory_limit = '100GB'", "wanted one query"),
        ("FROM read_text('/etc/hostname')", "disabled by configuration"),
        ("FROM read_csv('{url}/../secret.csv')", "disabled by configuration"),
        ("FROM glob('/etc/*')", "disabled by configuration"),
        ("FROM query('COPY (SELECT 1) TO ''{url}/x.csv''')", "SELECT"),
        ("SELECT text::INT FROM verdicts", "Could not convert string"),
        ("SELECT 'infinity'::TIMESTAMP", "cast it to VARCHAR"),
    ],
)
def test_what_is_no_question_to_the_views_is_said_in_words_and_changes_nothing(
    tmp_path: Path, sql: str, words: str
) -> None:
    url = tmp_path / "warehouse"
    WarehouseCarrier(str(url)).deliver([encode(verdict())])
    (tmp_path / "secret.csv").write_text("secret\n1\n")
    before = sorted(url.rglob("*"))

    with pytest.raises(InputError, match=r"^SQL: ") as told:
        rows(url, sql.format(url=url))

    assert words in str(told.value)
    assert sorted(url.rglob("*")) == before


def test_a_question_is_bounded_in_utc_and_draws_nothing(tmp_path: Path) -> None:
    sql = (
        "SELECT current_setting('memory_limit'), current_setting('TimeZone'), current_setting('enable_progress_bar'), "
        "current_setting('autoinstall_known_extensions')"
    )

    assert rows(tmp_path, sql) == [("1.0 GiB", "UTC", False, False)]


def test_python_variables_are_no_tables(tmp_path: Path) -> None:
    secret = rows(tmp_path, "SELECT 1")

    assert secret == [(1,)]
    with pytest.raises(InputError, match="secret"):
        rows(tmp_path, "FROM secret")


def test_an_error_says_nothing_that_steers_a_terminal(tmp_path: Path) -> None:
    WarehouseCarrier(str(tmp_path)).deliver([encode(verdict(text="\x1b[2J"))])

    with pytest.raises(InputError) as told:
        rows(tmp_path, "SELECT text::INT FROM verdicts")

    assert "\x1b" not in str(told.value)


def test_an_empty_warehouse_has_views_and_says_that_it_is_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask("SELECT (SELECT count(*) FROM verdicts) + (SELECT count(*) FROM escalations) AS found", str(tmp_path / "none"))

    told = capsys.readouterr()
    assert told.out == "found\n0\n"
    assert told.err == f"headwater: there is nothing in the warehouse {tmp_path / 'none'} yet\n"


def test_a_query_that_needs_more_than_its_memory_and_disk_is_an_outage(tmp_path: Path) -> None:
    sql = "SELECT max(length(t)) FROM (SELECT string_agg(md5(range::VARCHAR), '') AS t FROM range(2000000))"

    with (
        pytest.raises(UnavailableError, match="does not fit into memory"),
        asked(sql, str(tmp_path), memory_bytes=16 << 20) as result,
    ):
        list(result.rows)


def test_a_file_that_cannot_be_read_is_an_outage(tmp_path: Path) -> None:
    WarehouseCarrier(str(tmp_path)).deliver([encode(verdict())])
    (part,) = tmp_path.rglob("part-*.parquet")
    part.write_bytes(part.read_bytes()[:-100])

    with pytest.raises(UnavailableError, match=f"warehouse {tmp_path}: cannot be read: .*{part.name}"):
        rows(tmp_path, "FROM verdicts")


def test_an_url_of_no_warehouse_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="wanted a folder or s3://"):
        rows("http://host/warehouse", "SELECT 1")


def test_files_of_an_earlier_version_lack_a_column_and_of_a_later_one_have_more(tmp_path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415 - of this test only
    import pyarrow.parquet as pq  # noqa: PLC0415 - likewise

    WarehouseCarrier(str(tmp_path)).deliver([encode(verdict(id=id_, context={"owner": "ops"})) for id_ in "a"])
    (part,) = tmp_path.rglob("part-*.parquet")
    written = pq.read_table(part)
    other = part.with_name(f"part-{'0' * 32}.parquet")
    pq.write_table(
        written.drop_columns(["context"])
        .set_column(0, "id", pa.array(["b"]))
        .append_column("thought_of_later", pa.array([1])),
        other,
    )

    assert rows(tmp_path, "SELECT id, context FROM verdicts ORDER BY id") == [("a", {"owner": "ops"}), ("b", None)]
