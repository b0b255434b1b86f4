"""A field's value is found again in another event of its template, at the place where it stood."""

from hypothesis import given
from hypothesis import strategies as st

from dataflows.cache.places import Place, places_of
from models.masking import Masking


def masks_of(text: str) -> tuple[tuple[int, int], ...]:
    masked = Masking().mask(text)
    assert masked is not None
    return masked.spans


def test_a_masked_value_is_cut_from_another_event() -> None:
    one, other = "from 10.0.0.1 to 10.0.0.200 done", "from 10.20.30.40 to 10.5.5.5 done"
    (place,) = places_of("10.0.0.200", one, masks_of(one))

    assert place.cut(one, masks_of(one)) == "10.0.0.200"
    assert place.cut(other, masks_of(other)) == "10.5.5.5"


def test_a_value_around_a_mask_moves_with_what_is_before_it() -> None:
    one, other = "at 12345 see db-1 10.0.0.1:22 up", "at 54321 see db-1 10.0.0.100:22 up"
    (place,) = places_of("db-1 10.0.0.1:22", one, masks_of(one))

    assert place.cut(other, masks_of(other)) == "db-1 10.0.0.100:22"


def test_every_place_of_a_value_is_found_and_none_within_a_mask() -> None:
    text = "root 10.0.0.1 root aroot"

    assert [place.cut(text, masks_of(text)) for place in places_of("root", text, masks_of(text))] == ["root"] * 3
    assert places_of("0.0", text, masks_of(text)) == ()
    assert places_of("t 10", text, masks_of(text)) == ()
    assert places_of("absent", text, masks_of(text)) == ()
    assert places_of("", text, masks_of(text)) == ()


def test_a_value_that_stands_everywhere_has_no_place() -> None:
    assert len(places_of("a", "a " * 16, ())) == 16
    assert places_of("a", "a " * 17, ()) == ()


def test_a_value_overlaps_with_itself() -> None:
    assert places_of("aa", "aaa", ()) == (Place((0, 0), (0, 2)), Place((0, 1), (0, 3)))


@given(st.text("ab 1234567.", max_size=40), st.data())
def test_what_was_found_is_cut_again_from_the_same_text(text: str, data: st.DataObject) -> None:
    spans = masks_of(text)
    begin = data.draw(st.integers(0, len(text)))
    value = text[begin : data.draw(st.integers(begin, len(text)))]

    assert {place.cut(text, spans) for place in places_of(value, text, spans)} <= {value}
    inside = [span for span in spans if span[0] < begin < span[1] or span[0] < begin + len(value) < span[1]]
    if value and not inside and text.count(value) < 8:
        assert places_of(value, text, spans)
