"""Frames from rows: columns, types and index of the frame that was evaluated."""

import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from skrobust.networks import frame_like, import_pandas
from skrobust.pointwise import pointwise_robustness
from skrobust.properties import ClassificationRobustness, Domain
from skrobust.scorers import AdversarialFrequency, ConstraintSatisfaction, ViolationProbability
from skrobust.verification import Exact

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "age": RNG.integers(0, 9, 40),
        "member": RNG.integers(0, 2, 40).astype(bool),
        "ratio": RNG.uniform(size=40),
    },
    index=[f"row {i}" for i in range(40)],
)
Y = (FRAME["age"] + 3 * FRAME["ratio"] > 5).astype(int)


def test_counterexamples_are_like_the_frame():
    model = LogisticRegression(C=100).fit(FRAME, Y)
    domain = Domain.from_frame(FRAME)
    property = ClassificationRobustness([1, 1, 0.1], bounds=domain, reference="prediction")
    results = [
        ConstraintSatisfaction(property).evaluate(model, FRAME),
        Exact().verify(model, FRAME, property=property),
    ]
    for result in results:
        frame = result.counterexamples_frame(FRAME)
        falsified = result.verdicts == "falsified"
        assert 0 < len(frame) == falsified.sum() < 40
        assert list(frame.index) == list(FRAME.index[falsified])
        assert (frame.dtypes == FRAME.dtypes).all()
        assert (model.predict(frame) != model.predict(FRAME[falsified])).all()
    bounds = FRAME.to_numpy(dtype=float).min(axis=0), FRAME.to_numpy(dtype=float).max(axis=0)
    results = [
        pointwise_robustness(model, FRAME, bounds=bounds),
        AdversarialFrequency(1.0, bounds=bounds).evaluate(model, FRAME),
    ]
    for result in results:
        frame = result.counterexamples_frame(FRAME)
        assert list(frame.columns) == list(FRAME.columns)
        assert frame["age"].dtype == frame["member"].dtype == float  # whole no longer
        assert (model.predict(frame) != model.predict(FRAME.loc[frame.index])).all()
    empty = frame_like(np.full((40, 3), np.nan), FRAME)
    assert len(empty) == 0 and (empty.dtypes == FRAME.dtypes).all()


@pytest.mark.parametrize("what", ["to_frame", "WinsDisplay"])
def test_missing_pandas_is_said_with_the_command_that_installs_it(monkeypatch, what):
    assert import_pandas(what) is pd
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=rf"but {what} needs it.*pip install \"skrobust\[plots"):
        import_pandas(what)


def test_polars():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"age": [1, 2], "ratio": [0.5, 0.25]})
    found = frame_like(np.array([[2.0, 0.5], [np.nan, np.nan]]), frame)
    assert found.to_dict(as_series=False) == {"age": [2], "ratio": [0.5]}
    assert found.schema == frame.schema


def test_what_is_no_frame_is_refused():
    with pytest.raises(TypeError, match=r"Got X of type numpy\.ndarray, but expected a DataFrame"):
        frame_like(np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="the 2 rows that were evaluated"):
        frame_like(np.zeros((2, 3)), FRAME)
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    scorer = ViolationProbability(
        ClassificationRobustness(0.1, reference="prediction"), random_state=0
    )
    result = scorer.evaluate(model, [[0.1]])
    if not hasattr(result, "counterexamples"):
        with pytest.raises(TypeError, match="a result with counterexamples"):
            result.counterexamples_frame(FRAME)
