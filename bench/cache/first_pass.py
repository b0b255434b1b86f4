"""How much of a source's first lines a cache answers that begins empty."""

from contextlib import closing

from msgspec.structs import replace

from bench.cache.flow import stream_of
from bench.cache.steps import Remembering, answers, events_of, share_cached
from bench.cache.stream import Sizes
from bench.row import Row
from dataflows.cache.verdict_cache import VerdictCache
from models.classifier import Classifier
from models.contracts.policy import Policy
from models.opening import open_classifier


def rows(sizes: Sizes) -> list[Row]:
    """Measure each source with a cache of its own; beside it, what is left where doubtful answers are not cached."""
    sources = stream_of(sizes).sources
    with closing(open_classifier(sizes.release)) as opened:
        classifier, policy = Remembering(opened), opened.release.policy
        sure = replace(policy, cache=replace(policy.cache, doubtful=False))
        shares = hit_rates(sources, classifier, policy)
        of_sure = hit_rates(sources, classifier, sure)
    lines = {name: len(texts) for name, texts in sources.items()}
    return [
        Row(
            name="hit_rate_first_pass",
            value=sum(shares[name] * lines[name] for name in lines) / sum(lines.values()),
            unit=f"share of {sum(lines.values())}",
            peer=f"{said(shares)}; `doubtful = false`: {said(of_sure)}",
        )
    ]


def hit_rates(sources: dict[str, list[str]], classifier: Classifier, policy: Policy) -> dict[str, float]:
    """Return the share of every source's lines that the cache answers."""
    return {
        name: share_cached(answers(events_of(texts), classifier, policy, VerdictCache(b"bench")))
        for name, texts in sources.items()
    }


def said(shares: dict[str, float]) -> str:
    """Return shares by source in words."""
    return ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
