import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quantize.ranking import kinds_of, ranked

FAILED = "sshd: Failed password for root from 10.0.0.{} port 22 ssh2"
USED = "disk: {} of the disk on the first shelf is used"


def sure(*confidences: float) -> np.ndarray:
    return np.array([[one, 1 - one, 0.0] for one in confidences])


def test_the_smallest_margin_between_the_two_likeliest_is_first() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.45, 0.1, 0.45], [0.1, 0.8, 0.1]])

    assert ranked(["alpha one", "beta two", "gamma three"], probabilities) == [1, 0, 2]


def test_the_second_of_a_kind_waits_for_the_first_of_every_other() -> None:
    bodies = [FAILED.format(1), FAILED.format(2), FAILED.format(3), USED.format("half"), "kernel: link is up"]

    assert ranked(bodies, sure(0.52, 0.51, 0.53, 0.6, 0.9)) == [1, 3, 4, 0, 2]


def test_what_is_like_something_labelled_waits() -> None:
    bodies = [FAILED.format(1), USED.format("half"), USED.format("all"), "kernel: link is up"]
    labelled = [FAILED.format(7), FAILED.format(8), USED.format("most")]

    assert ranked(bodies, sure(0.5, 0.6, 0.7, 0.99), labelled) == [3, 1, 0, 2]


def test_texts_are_of_one_kind_that_share_most_of_their_phrases() -> None:
    texts = [FAILED.format(1), USED.format("half"), FAILED.format(2), USED.format("a quarter"), "12 34", "56", "up"]

    assert kinds_of(texts) == [0, 1, 0, 1, 2, 2, 3]


def test_a_hundred_kinds_come_before_any_comes_twice() -> None:
    letters = "abcdefghij"
    kinds = [f"{one} {other} happened to {other} {one}" for one in letters for other in letters]
    bodies = [f"{kind} {number}" for kind in kinds for number in range(20)]
    chance = np.random.default_rng(1)
    order = ranked(bodies, chance.dirichlet((1, 1, 1), len(bodies)))

    assert len({bodies[at].rpartition(" ")[0] for at in order[:100]}) == 100


@given(st.lists(st.text("ab 1", max_size=8), max_size=12), st.lists(st.text("ab 1", max_size=8), max_size=4))
def test_every_event_comes_once(bodies: list[str], labelled: list[str]) -> None:
    probabilities = np.random.default_rng(len(bodies)).dirichlet((1, 1), len(bodies))

    assert sorted(ranked(bodies, probabilities, labelled)) == list(range(len(bodies)))
