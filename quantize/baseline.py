"""The peer in every report: character n-grams and logistic regression on the same examples."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from models.contracts.task import Task
from quantize.examples import Examples
from quantize.expand import Example, example_of, expand

_COPIES, _SEED = 2, 91
_FEW = 1_000  # of so few, none is to be left out for being seldom


def examples_for_peers(found: Examples, task: Task) -> list[Example]:
    """Return what a peer learns from: every template as it is written, twice, and not what strangers make of it.

    What is written into events teaches a model to look away from it; n-grams cannot, and are spared it.
    """
    if not found.types:
        return found.draw(0)
    return [example_of(line, task) for line in expand(found.types, copies=_COPIES, seed=_SEED)]


def train_baseline(examples: Sequence[Example], names: Sequence[str], *, evenly: bool = False) -> Pipeline:
    """Fit what a good user would try first; its classes are the indices of `names`.

    With `evenly` labels count alike, however often each occurs: for a peer that is measured on as many of each.
    """
    pipeline = make_pipeline(
        TfidfVectorizer(
            analyzer="char_wb",
            ngram_range=(2, 5),
            min_df=3 if len(examples) > _FEW else 1,
            max_features=200_000,
            sublinear_tf=True,
        ),
        LogisticRegression(C=8.0, max_iter=300, class_weight="balanced" if evenly else None),
    )
    return pipeline.fit([example.body for example in examples], [names.index(example.label) for example in examples])


def choose(pipeline: Pipeline, bodies: Sequence[str]) -> NDArray[np.int64]:
    """Return the index of the label for every body."""
    return np.asarray(pipeline.predict(list(bodies)), dtype=np.int64)
