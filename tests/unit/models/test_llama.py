"""Each rule whose breach would end the process is an exception instead."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.contracts.errors import UnavailableError, UntrustedError
from models.llama import Batch, Context, Encoder, Model


@pytest.fixture
def model(decoder_file: Path) -> Iterator[Model]:
    with Model(decoder_file) as opened:
        yield opened


def context(model: Model, **changes: int) -> Context:
    return Context(model, **({"cells": 256, "rows": 64, "sequences": 4} | changes), attention="plain")


def batch(tokens: int, position: int = 0) -> Batch:
    filled = Batch(tokens)
    filled.position[:] = np.arange(position, position + tokens)
    filled.wanted[-1] = 1
    return filled


def test_more_rows_than_the_context_takes_are_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="65 rows; 1 to 64"):
        context(model).decode(batch(65), 0, 65)


def test_no_rows_are_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="0 rows"):
        context(model).decode(batch(1), 0, 0)


def test_more_sequences_than_llama_cpp_has_are_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="257 sequences"):
        context(model, sequences=257)


def test_every_row_may_be_asked_for(model: Model) -> None:
    rows = batch(64)
    rows.wanted[:] = 1

    assert context(model).decode(rows, 0, 64).shape == (64, model.vocabulary.size)


def test_a_full_cache_is_unavailable_and_answers_as_before_once_there_is_room(model: Model) -> None:
    small = context(model)
    before = small.decode(batch(10), 0, 10).copy()
    small.forget(0, 0)
    for begin in range(0, 256, 64):
        small.decode(batch(64, begin), 0, 64)
    with pytest.raises(UnavailableError, match="no room"):
        small.decode(batch(64, 256), 0, 64)
    small.forget(0, 0)

    assert np.array_equal(small.decode(batch(10), 0, 10), before)


def test_a_gap_in_the_positions_is_unavailable_and_not_an_abort(model: Model) -> None:
    opened = context(model)
    opened.decode(batch(4), 0, 4)
    with pytest.raises(UnavailableError, match="bad batch"):
        opened.decode(batch(4, 9), 0, 4)


def test_a_token_that_is_none_is_unavailable_and_not_an_abort(model: Model) -> None:
    rows = batch(1)
    rows.token[:] = model.vocabulary.size

    with pytest.raises(UnavailableError, match="bad batch"):
        context(model).decode(rows, 0, 1)


def test_closing_a_model_closes_its_contexts_first(decoder_file: Path) -> None:
    model = Model(decoder_file)
    opened = context(model)
    model.close()

    with pytest.raises(UnavailableError, match="closed"):
        opened.decode(batch(1), 0, 1)
    with pytest.raises(UnavailableError, match="closed"):
        _ = model.rolls_back
    model.close()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(64), b"not a model at all" * 100])
def test_a_file_that_is_no_model_is_untrusted(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "wrong.gguf"
    path.write_bytes(content)

    with pytest.raises(UntrustedError, match=r"wrong\.gguf: llama\.cpp does not load it"):
        Model(path)


def test_a_truncated_model_is_untrusted(decoder_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.gguf"
    path.write_bytes(decoder_file.read_bytes()[: decoder_file.stat().st_size // 2])

    with pytest.raises(UntrustedError, match="does not load it"):
        Model(path)


def test_a_model_whose_file_is_truncated_while_in_use_goes_on(decoder_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.gguf"
    path.write_bytes(decoder_file.read_bytes())
    with Model(path) as model:
        path.write_bytes(b"")

        assert np.isfinite(context(model).decode(batch(8), 0, 8)).all()


def test_a_stretch_of_a_batch_decodes_as_the_whole_does(model: Model) -> None:
    rows = batch(8)
    rows.token[:] = np.arange(65, 73)
    whole = context(model).decode(rows, 0, 8).copy()
    parts = context(model)
    parts.decode(rows, 0, 5)

    assert np.abs(parts.decode(rows, 5, 8) - whole).max() < 0.05


def test_an_encoder_takes_no_more_than_it_was_opened_for(encoder_file: Path) -> None:
    with Model(encoder_file) as model:
        encoder = Encoder(model, rows=64, sequences=2)

        with pytest.raises(ValueError, match="at most 64"):
            encoder.encode([[5] * 65])
        with pytest.raises(ValueError, match="at most 64 in 2"):
            encoder.encode([[5], [5], [5]])
        assert encoder.encode([[5, 6], [7]]).shape == (2, 3)


def test_a_decoder_is_no_encoder_and_says_so(decoder_file: Path, encoder_file: Path) -> None:
    with Model(decoder_file) as decoder, Model(encoder_file) as encoder:
        assert (decoder.pools_to_labels, encoder.pools_to_labels) == (False, True)
        assert (decoder.decodes, decoder.rolls_back) == (True, True)
        assert encoder.labels == ("critical", "benign", "suspicious")


def test_labels_are_not_known_where_only_the_vocabulary_was_read(encoder_file: Path) -> None:
    with Model(encoder_file, vocabulary_only=True) as model, pytest.raises(RuntimeError, match="only its vocabulary"):
        _ = model.pools_to_labels


def test_an_error_quotes_what_llama_cpp_said_on_its_own_thread(tmp_path: Path) -> None:
    found: dict[str, set[str]] = {}

    def load(name: str) -> None:
        path = tmp_path / name
        errors = set()
        for _ in range(200):
            with pytest.raises(UntrustedError) as caught:
                Model(path)
            errors.add(str(caught.value))
        found[name] = errors

    threads = [threading.Thread(target=load, args=(name,)) for name in ("here.gguf", "there.gguf")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert {name: len(errors) for name, errors in found.items()} == {"here.gguf": 1, "there.gguf": 1}
    assert all("there.gguf" not in error for error in found["here.gguf"])
