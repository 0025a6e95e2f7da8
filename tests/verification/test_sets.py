"""Verdicts on discrete spaces: as by trying every valid point, for networks and for trees."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from skrobust.evidence import check
from skrobust.exceptions import MissingEvidenceWarning, UnsupportedPropertyError
from skrobust.properties import ClassificationRobustness, Domain, StandardRobustness
from skrobust.scorers import ConstraintAccuracy, ConstraintSatisfaction, ConstraintSecurity
from skrobust.verification import Cascade, Exact, Reason, TreeVerifier, export_query

CODES = np.eye(3).tolist()
EVERY = np.array([[a, *code, u] for a in range(6) for code in CODES for u in range(4)])
RNG = np.random.default_rng(0)
X = EVERY[RNG.permutation(len(EVERY))]
Y = (X[:, 0] + 2 * X[:, 2] - 1.5 * X[:, 3] * X[:, 4] > 2).astype(int)
PLAIN = {"integers": [0, 4], "one_hot": [[1, 2, 3]]}
DOMAINS = {
    "groups": Domain([0, 0, 0, 0, 0], [5, 1, 1, 1, 3], **PLAIN),
    "constraints": Domain(
        [0, 0, 0, 0, 0], [5, 1, 1, 1, 3], **PLAIN, constraints=([[1, 0, 0, 0, 1]], [5])
    ),
}
MODELS = {
    "network": MLPClassifier((6,), solver="lbfgs", max_iter=150, random_state=0).fit(X, Y),
    "tree": DecisionTreeClassifier(max_depth=4, random_state=0).fit(X, Y),
    "forest": RandomForestClassifier(5, random_state=0).fit(X, Y),
}
EPSILONS = [1.0, [2, 0, 0, 0, 1], ([0, 1, 1, 1, 0], [1, 1, 1, 1, 1])]


def near(x, epsilon, domain):
    """Return every valid point within reach, by trying all."""
    down, up = epsilon if isinstance(epsilon, tuple) else (epsilon, epsilon)
    moved = EVERY - x
    within = (moved <= np.asarray(up)).all(axis=1) & (-moved <= np.asarray(down)).all(axis=1)
    return EVERY[within & domain.holds(EVERY)]


@pytest.mark.parametrize("epsilon", EPSILONS, ids=["all", "integers", "one-sided"])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_verdicts_are_those_of_all_points(kind, epsilon, domain):
    model, valid = MODELS[kind], domain.holds(X)
    rows, labels = X[valid][:12], Y[valid][:12]
    wanted = [
        "verified" if (model.predict(near(x, epsilon, domain)) == y).all() else "falsified"
        for x, y in zip(rows, labels, strict=True)
    ]
    property = ClassificationRobustness(epsilon, bounds=domain)
    for verifier in [Cascade(), Exact() if kind == "network" else TreeVerifier()]:
        result = verifier.verify(model, rows, labels, property=property, random_state=0)
        assert result.verdicts.tolist() == wanted
        for i in np.flatnonzero(result.verdicts == "falsified"):
            point = result.counterexamples[i]
            assert (near(rows[i], epsilon, domain) == point).all(axis=1).any()
            assert model.predict([point])[0] != labels[i]


@pytest.mark.parametrize("kind", ["tree", "forest"])
def test_trees_keep_to_constraints_between_continuous_features(kind):
    """As by every cell in which the trees are constant, whose least sum is in closed form."""
    rng = np.random.default_rng(2)
    Z = rng.uniform(size=(150, 2))
    labels = (Z[:, 0] * Z[:, 1] + 0.1 * rng.normal(size=150) > 0.3).astype(int)
    model = clone(MODELS[kind]).fit(Z, labels)
    trees = model.estimators_ if kind == "forest" else [model]
    thresholds = [
        np.unique(np.concatenate([t.tree_.threshold[t.tree_.feature == f] for t in trees]))
        for f in range(2)
    ]
    domain = Domain(0, 1, constraints=([[1, 2]], [1.6]))
    property = ClassificationRobustness(0.12, bounds=domain, reference="prediction")
    rows = Z[domain.holds(Z)][:40]
    wanted = []
    for x in rows:
        low, high = np.maximum(x - 0.12, 0), np.minimum(x + 0.12, 1)
        sides = [
            np.r_[lo, t[(t > lo) & (t < hi)], hi]
            for t, lo, hi in zip(thresholds, low, high, strict=True)
        ]
        cells = [
            np.array([(u + v) / 2, (w + z) / 2])
            for u, v in pairwise(sides[0])
            for w, z in pairwise(sides[1])
            if u + 2 * w < 1.6
        ]
        is_kept = (model.predict(np.array(cells)) == model.predict([x])).all()
        wanted.append("verified" if is_kept else "falsified")
    result = TreeVerifier().verify(model, rows, property=property)
    assert result.verdicts.tolist() == wanted
    whole = ClassificationRobustness(0.12, bounds=domain.box, reference="prediction")
    box = TreeVerifier().verify(model, rows, property=whole)
    assert (box.verdicts == "verified").sum() <= wanted.count("verified") < len(wanted)
    found = result.verdicts == "falsified"
    assert domain.holds(result.counterexamples[found]).all()
    assert (model.predict(result.counterexamples[found]) != model.predict(rows[found])).all()
    cascade = ConstraintSatisfaction(property, random_state=0).evaluate(model, rows)
    assert cascade.verdicts.tolist() == wanted


def test_constraints_that_only_together_leave_no_point_are_a_proof_for_trees():
    tree = DecisionTreeClassifier().fit([[0.0, 0.0], [1.0, 0.0]], [0, 1])  # cut at 1/2
    rows = [[0.2, 0.2], [0.2, 0.45]]
    # Above 1/2, one of them asks for less than 0.3 of the other feature, and one for more.
    domain = Domain(0, 1, constraints=([[1, 1], [1, -1]], [0.8, 0.1]))
    property = ClassificationRobustness(0.4, bounds=domain, reference="prediction")
    assert (
        TreeVerifier().verify(tree, rows, property=property).verdicts.tolist() == ["verified"] * 2
    )
    for limit in (0.9, 1.0):
        wider = Domain(0, 1, constraints=([[1, 1], [1, -1]], [limit, 0.2]))
        property = ClassificationRobustness(0.4, bounds=wider, reference="prediction")
        result = TreeVerifier().verify(tree, rows, property=property)
        assert result.verdicts.tolist() == ["falsified"] * 2


def test_scorers_agree_with_all_points():
    model, domain = MODELS["network"], DOMAINS["constraints"]
    rows, labels = X[domain.holds(X)], Y[domain.holds(X)]
    each = [model.predict(near(x, 1.0, domain)) == y for x, y in zip(rows, labels, strict=True)]
    share = np.mean([holds.all() for holds in each])
    property = ClassificationRobustness(1.0, bounds=domain)
    assert ConstraintSatisfaction(property, random_state=0)(model, rows, labels) == share
    assert ConstraintSecurity(property, random_state=0)(model, rows, labels) == share
    accuracy = ConstraintAccuracy(property, 200, random_state=0)(model, rows, labels)
    assert abs(accuracy - np.mean([holds.mean() for holds in each])) < 0.02


def test_outputs_are_compared_with_those_of_the_reference():
    """Around a piece whose single values are held, the reference stays the sample itself."""
    model, domain = MODELS["network"], DOMAINS["groups"]
    epsilon = [1, 0, 0, 0, 0]
    changes = np.array(
        [np.abs(_logits(model, near(x, epsilon, domain)) - _logits(model, [x])).max() for x in X]
    )
    delta = float(np.median(changes)) * 1.01
    property = StandardRobustness(epsilon, delta=delta, bounds=domain)
    result = Exact().verify(model, X[:12], property=property)
    assert ((result.verdicts == "verified") == (changes[:12] <= delta)).all()
    assert set(result.verdicts) == {"verified", "falsified"}


def _logits(model, points):
    from skrobust.networks import as_network

    network = as_network(model)
    return network(network.rows(np.asarray(points))).detach().numpy()


def test_continuous_features_beside_whole_ones():
    rng = np.random.default_rng(1)
    Z = np.c_[rng.integers(0, 5, 150), rng.uniform(size=150)].astype(float)
    labels = (Z[:, 0] + 3 * Z[:, 1] > 3.6).astype(int)
    model = MLPClassifier((6,), solver="lbfgs", max_iter=200, random_state=0).fit(Z, labels)
    domain = Domain([0, 0], [4, 1], integers=[0])
    property = ClassificationRobustness([1, 0.05], bounds=domain, reference="prediction")
    box = ClassificationRobustness([1, 0.05], bounds=domain.box, reference="prediction")
    result = Exact().verify(model, Z[:20], property=property)
    relaxed = Exact().verify(model, Z[:20], property=box)
    grid = np.linspace(-0.05, 0.05, 41)
    for i, (age, u) in enumerate(Z[:20]):
        ages = [a for a in (age - 1, age, age + 1) if 0 <= a <= 4]
        points = np.array([[a, v] for a in ages for v in np.clip(u + grid, 0, 1)])
        changes = (model.predict(points) != model.predict([[age, u]])).any()
        assert not (changes and result.verdicts[i] == "verified")
        assert result.verdicts[i] != "unknown"
    assert (result.verdicts == "verified").sum() >= (relaxed.verdicts == "verified").sum()


def test_too_many_values_end_as_a_limit_on_work():
    model, domain = MODELS["network"], Domain(0, 1e6, integers=[0])
    Z = np.abs(X) @ np.diag([1, 0, 0, 0, 0])
    property = ClassificationRobustness([1e5, 0, 0, 0, 0], bounds=domain, reference="prediction")
    result = Exact().verify(model, Z[:6], property=property)
    is_open = result.verdicts == "unknown"
    assert all("at most 4096 are tried" in note for note in result.notes[is_open])


@pytest.mark.parametrize("kind", MODELS)
def test_evidence_is_about_the_valid_points(kind, tmp_path):
    """What the box proves has evidence, and what breaks the property is a valid point."""
    model, domain = MODELS[kind], DOMAINS["constraints"]
    rows, labels = X[domain.holds(X)][:8], Y[domain.holds(X)][:8]
    property = ClassificationRobustness([2, 0.5, 0.5, 0.5, 1], bounds=domain)
    plain = Cascade().verify(model, rows, labels, property=property, random_state=0)
    result = Cascade().verify(
        model, rows, labels, property=property, random_state=0, evidence=tmp_path
    )
    assert (result.verdicts == plain.verdicts).all()
    assert set(result.verdicts) == {"verified", "falsified"}
    assert (result.evidence != "").all(), result.notes
    evidence = check(tmp_path, model, exact=True)
    assert evidence.is_accepted
    for name in set(result.evidence):
        arrays = dict(np.load(tmp_path / name))
        assert arrays["group"].tolist() == [0, 1, 1, 1, 0]
        assert arrays["integers"].tolist() == [0, 4]
        assert arrays["domain_b"].tolist() == [5]
        # An epsilon below 1 keeps the category.
        reach = np.broadcast_to(arrays["epsilon"], (2, 5))
        assert (reach[:, 1:4] == 0).all()
    if kind == "network":
        assert check(tmp_path, model, rows, labels, property=property).is_accepted
        box = ClassificationRobustness([2, 0.5, 0.5, 0.5, 1], bounds=(0, 5))
        assert not check(tmp_path, model, rows, labels, property=box).accepted.any()


@pytest.mark.parametrize("kind", ["network", "tree"])
def test_what_single_values_decide_has_no_evidence_and_says_why(kind, tmp_path):
    domain = DOMAINS["constraints"]
    property = ClassificationRobustness(EPSILONS[2], bounds=domain)
    args = MODELS[kind], X[domain.holds(X)][:8], Y[domain.holds(X)][:8]
    options = {"property": property, "random_state": 0}
    with pytest.warns(MissingEvidenceWarning, match="decided one by one"):
        result = Cascade().verify(*args, evidence=tmp_path, **options)
    verified = result.verdicts == "verified"
    assert (result.evidence[verified] == "").any()
    assert (result.evidence[~verified] != "").all()
    required = Cascade().verify(*args, evidence="required", **options)
    without = result.evidence == ""
    assert set(required.verdicts[without]) == {"unknown"}
    assert set(required.reasons[without]) == {Reason.WITHOUT_EVIDENCE}


def test_queries_of_domains_are_refused_by_name(tmp_path):
    property = ClassificationRobustness(1.0, bounds=DOMAINS["groups"])
    with pytest.raises(UnsupportedPropertyError, match="a query is about a box"):
        export_query(MODELS["network"], property, X[0], 0, folder=tmp_path)
