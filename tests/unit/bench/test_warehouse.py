from bench.central.warehouse import rows


def test_deliveries_and_a_question_are_measured_on_as_many_verdicts_as_wanted() -> None:
    found = rows(verdicts=45_000, delivered=1000)

    assert [(row.name, row.passed) for row in found] == [
        ("warehouse_verdicts_per_s", None),
        ("warehouse_query_ms", None),
    ]
    assert all(row.value > 0 for row in found)
    assert "45000" in found[1].unit
