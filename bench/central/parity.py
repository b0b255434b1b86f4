"""How far apart a gateway and the centre are with the same weights: llama.cpp on F16, vLLM at 16 bits."""

from contextlib import closing

from bench.central.served import CONTEXT_TOKENS, asking, events, served, windows
from bench.random_models import FIVE_MILLION
from bench.row import Row
from models.opening import open_classifier

_EVENTS = 1000
_WINDOW = 64
_TOLERANCE = 0.02
_SURE = 0.9  # where every event is certain, nothing differs


def rows() -> list[Row]:
    """Return the largest difference of any label's probability over a thousand events."""
    texts = events(_EVENTS)
    with served(FIVE_MILLION, dtype="float16") as model:
        with closing(open_classifier(model.gguf, context_tokens=CONTEXT_TOKENS)) as gateway:
            here = [opinion for window in windows(texts, _WINDOW) for opinion in gateway.classify(window)]
        with closing(asking(model.url)) as centre:
            there = [opinion for window in windows(texts, _WINDOW) for opinion in centre.classify(window)]
    if any(opinion.unanswered for opinion in there):
        raise RuntimeError("bench: an event was not answered; the figure is none")
    differences = [
        max(abs(one - other) for one, other in zip(mine.probabilities, theirs.probabilities, strict=True))
        for mine, theirs in zip(here, there, strict=True)
    ]
    flips = sum(
        mine.probabilities.index(max(mine.probabilities)) != theirs.probabilities.index(max(theirs.probabilities))
        for mine, theirs in zip(here, there, strict=True)
    )
    largest = max(differences)
    doubtful = sum(max(opinion.probabilities) < _SURE for opinion in here)
    return [
        Row(
            name="parity_max_difference",
            value=largest,
            unit=f"of a probability, over {_EVENTS} events",
            peer=f"mean {sum(differences) / len(differences):.5f}, {flips} labels otherwise; {doubtful} below {_SURE}",
            passed=largest <= _TOLERANCE,
        )
    ]
