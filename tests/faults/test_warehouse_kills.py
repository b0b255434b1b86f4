"""A warehouse whose writers and compactors are killed over and over: no row is lost, and none is there twice."""

import subprocess
import sys
from pathlib import Path
from random import Random
from time import sleep

from central.warehouse.compaction import compact_all
from central.warehouse.layout import is_settled
from central.warehouse.storage import open_storage
from tests.conftest import ROOT
from tests.fakes.warehouse import rows

KILLS = 8
BATCH = 500
LATEST_KILL_S = 0.4

WRITE = f"""
import sys
from itertools import count
from central.deliveries.warehouse import WarehouseCarrier
from models.contracts.wire import encode
from tests.fakes.verdicts import verdict

carrier = WarehouseCarrier(sys.argv[1])
for batch in count(int(sys.argv[2])):
    # Each batch is of two days, so that it can be delivered by half.
    carrier.deliver([
        encode(verdict(id=f"o.{{number}}", received_at_ms=1_700_006_400_000 + (-1) ** number * 1000, text="x" * 1000))
        for number in range(batch * {BATCH}, (batch + 1) * {BATCH})
    ])
    print(batch, flush=True)
"""
COMPACT = """
import sys
from central.warehouse.compaction import compact_all
from central.warehouse.storage import open_storage

while True:
    # What was replaced is deleted soon: nobody asks meanwhile.
    for done in compact_all(open_storage(sys.argv[1]), kept_s=0.05):
        pass
    print("compacted", flush=True)
"""


def test_nothing_is_lost_or_doubled_where_writer_and_compactor_are_killed_at_random(tmp_path: Path) -> None:
    url, chance = str(tmp_path / "warehouse"), Random(7)
    acknowledged = 0
    for _ in range(KILLS):
        begun = [
            subprocess.Popen(
                [sys.executable, "-c", code, url, str(acknowledged)], cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
            for code in (WRITE, COMPACT)
        ]
        try:
            for child in begun:
                assert child.stdout is not None
                assert child.stdout.readline()  # it is at work
            sleep(chance.uniform(0, LATEST_KILL_S))
        finally:
            for child in begun:
                child.kill()
        written, _ = (child.communicate()[0].splitlines() for child in begun)
        acknowledged += 1 + len(written)

    written_for_sure = {f"o.{number}" for number in range(acknowledged * BATCH)}

    def is_whole() -> bool:
        found = [id_ for (id_,) in rows(url, "SELECT id FROM verdicts")]
        return len(found) == len(set(found)) and written_for_sure.issubset(found)

    # From the second time on the compactor's first pass had something to merge, and was killed after it.
    assert any(is_settled(found.name) for found in open_storage(url).files(""))
    assert is_whole()
    for _ in range(2):
        list(compact_all(open_storage(url), kept_s=-60.0))
    assert is_whole()
    left = [found.name for found in open_storage(url).files("")]
    assert len(left) == 2
    assert all(map(is_settled, left))
