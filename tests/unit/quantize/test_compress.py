import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import msgspec
import numpy as np
import pytest

from models.contracts.errors import InputError
from models.contracts.release import Prompt
from quantize import ask
from quantize.compress import Trial, choose, compress
from quantize.recipe import Candidate, Compression
from tests.fakes.tiny_models import RELEASE, tiny_decoder, tiny_encoder

LIMITS = Compression(max_megabytes=25.0, min_events_per_s=60.0)
FLIPS, ERROR = 0.01, 0.03
ENCODER = msgspec.structs.replace(RELEASE, prompt=Prompt(kind="encoder"))
TEXTS = [f"sshd: Failed password for user{at} from 10.0.0.{at}" for at in range(20)]
EMBEDDING = "token_embd.weight"


def trial(megabytes: float, flips: float = 0.0, error: float = 0.0, events_per_s: float = 100.0) -> Trial:
    return Trial(Candidate(type="Q4_0"), megabytes, flips, error, events_per_s)


def chosen(*trials: Trial) -> Trial:
    return choose(trials, LIMITS, FLIPS, ERROR)


def test_a_candidate_at_every_limit_misses_none() -> None:
    assert trial(25.0, FLIPS, ERROR, 60.0).misses(LIMITS, FLIPS, ERROR) == []


def test_every_limit_that_a_candidate_misses_is_said_in_words() -> None:
    assert trial(25.2, 0.0123, 0.0314, 59.0).misses(LIMITS, FLIPS, ERROR) == [
        "25.2 MB",
        "59 events/s",
        "1.23% of the labels flip",
        "calibration error 0.031",
    ]


def test_the_smallest_that_misses_no_limit_is_chosen() -> None:
    small, smaller = trial(14.0, 0.009), trial(13.0, 0.004)

    assert (
        chosen(trial(20.0), small, smaller, trial(12.0, 0.02), trial(11.0, error=0.05), trial(10.0, events_per_s=9))
        == smaller
    )


def test_of_two_as_small_the_faster_is_chosen() -> None:
    fast = trial(14.0, events_per_s=90.0)

    assert chosen(trial(14.0, events_per_s=80.0), fast) == fast


def test_where_all_miss_the_one_that_is_small_and_fast_and_flips_least_is_chosen() -> None:
    best = trial(24.0, 0.02, 0.2)

    assert chosen(trial(10.0, 0.03), best, trial(30.0), trial(20.0, events_per_s=5.0)) == best


def test_of_two_that_flip_as_often_the_smaller_is_chosen() -> None:
    smaller = trial(20.0, 0.02)

    assert chosen(trial(21.0, 0.02), smaller) == smaller


def test_where_none_is_small_and_fast_enough_the_one_that_flips_least_is_chosen() -> None:
    best = trial(90.0, 0.001)

    assert chosen(trial(30.0, 0.04), best, trial(20.0, 0.002, events_per_s=5.0)) == best


def types_of(path: Path) -> dict[str, str]:
    return {str(tensor.name): tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of 64 columns: llama.cpp's K types want multiples of 256."""
    return tiny_encoder(tmp_path_factory.mktemp("whole") / "encoder.gguf", release=ENCODER)


def test_what_is_compressed_is_whole_smaller_and_answers_much_as_before(whole: Path, tmp_path: Path) -> None:
    done = compress(whole, tmp_path / "small.gguf", Candidate(type="Q8_0"))
    before, after = (ask.ask(path, ENCODER, TEXTS) for path in (whole, tmp_path / "small.gguf"))

    assert (done.path, done.fallbacks) == (str(tmp_path / "small.gguf"), {})
    assert done.megabytes == (tmp_path / "small.gguf").stat().st_size / 1e6 < whole.stat().st_size / 1e6
    assert types_of(tmp_path / "small.gguf").keys() == types_of(whole).keys()
    assert 0 < np.abs(after.probabilities - before.probabilities).max() < 0.05
    assert [path.name for path in tmp_path.iterdir()] == ["small.gguf"]


def test_the_embedding_may_have_a_type_of_its_own_which_is_no_fallback(whole: Path, tmp_path: Path) -> None:
    done = compress(whole, tmp_path / "small.gguf", Candidate(type="Q4_0", embedding="Q5_0"))
    types = types_of(tmp_path / "small.gguf")

    assert (types[EMBEDDING], types["blk.0.attn_q.weight"], done.fallbacks) == ("Q5_0", "Q4_0", {})


def test_a_type_that_llama_cpp_took_in_place_of_the_wanted_one_is_reported_with_its_tensors(
    whole: Path, tmp_path: Path
) -> None:
    done = compress(whole, tmp_path / "small.gguf", Candidate(type="Q4_K_M"))
    types = types_of(tmp_path / "small.gguf")
    norms = {name for name, kind in types.items() if kind in ("F32", "F16")}

    assert done.fallbacks.keys() >= {"Q5_0"}
    assert {name: kind for kind, names in done.fallbacks.items() for name in names} == {
        name: kind for name, kind in types.items() if name not in norms
    }


def test_an_embedding_of_the_wanted_type_must_be_asked_for(whole: Path, tmp_path: Path) -> None:
    plain = compress(whole, tmp_path / "plain.gguf", Candidate(type="Q4_0"))
    asked = compress(whole, tmp_path / "asked.gguf", Candidate(type="Q4_0", embedding="Q4_0"))

    assert plain.fallbacks == {types_of(tmp_path / "plain.gguf")[EMBEDDING]: [EMBEDDING]}
    assert asked.fallbacks == {}
    assert asked.megabytes < plain.megabytes


def test_what_llama_cpp_refuses_is_said_and_leaves_no_file(tmp_path: Path) -> None:
    small = tiny_decoder(tmp_path / "in-four-bits.gguf")

    with pytest.raises(InputError, match=rf"{small}: llama\.cpp does not quantize it to Q8_0"):
        compress(small, tmp_path / "small.gguf", Candidate(type="Q8_0"))
    assert list(tmp_path.iterdir()) == [small]


def test_a_run_that_breaks_off_half_way_leaves_no_file(whole: Path, tmp_path: Path) -> None:
    # 64 columns cannot be written as Q6_K, which shows after a part of the file has been written.
    with pytest.raises(InputError, match=r"does not quantize it to Q4_0"):
        compress(whole, tmp_path / "small.gguf", Candidate(type="Q4_0", embedding="Q6_K"))

    assert list(tmp_path.iterdir()) == []


@contextmanager
def files_of_at_most(limit_bytes: int) -> Iterator[None]:
    """Let every file that this process writes end there, as on a file system that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heard)


def test_a_file_that_may_not_grow_leaves_no_file_and_the_one_before_it_stays(whole: Path, tmp_path: Path) -> None:
    compress(whole, tmp_path / "small.gguf", Candidate(type="Q8_0"))
    before = (tmp_path / "small.gguf").read_bytes()

    with files_of_at_most(1 << 16), pytest.raises(OSError, match="File too large"):
        compress(whole, tmp_path / "small.gguf", Candidate(type="Q5_0"))

    assert [path.name for path in tmp_path.iterdir()] == ["small.gguf"]
    assert (tmp_path / "small.gguf").read_bytes() == before


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.gguf"):
        compress(tmp_path / "nowhere.gguf", tmp_path / "small.gguf", Candidate(type="Q4_0"))
