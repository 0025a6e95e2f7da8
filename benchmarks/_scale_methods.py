"""What `scale.py` measures: networks and trees to ask, and the methods, as users call them."""

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from skrobust import RobustClassifier, pointwise_robustness
from skrobust.attacks import FGSM, PGD, AutoPGD, FastMinimumNorm
from skrobust.estimators import Autoencoder
from skrobust.properties import ClassificationRobustness, LipschitzRobustness
from skrobust.scorers import (
    AdversarialFrequency,
    AdversarialSeverity,
    ConstraintAccuracy,
    ConstraintSatisfaction,
    ConstraintSecurity,
    CorruptionRobustness,
    GlobalRobustness,
    ManifoldRobustness,
    MarginRobustness,
    RobustnessScore,
    ViolationProbability,
)
from skrobust.verification import Bounds, Cascade, Exact, LipschitzBounds, Marabou, TreeVerifier

N_CLASSES = 10
N_TRAIN, N_TEST = 2000, 2048
DOMAINS = 200  # limit on the work of the complete methods, for a point


class Question:
    """A network or a tree, points, and the radius at which they are hard.

    It is the median distance at which an attack finds another label, or for trees that at which
    there is one: about half of the points have a counterexample.
    """

    def __init__(self, n_features, build, seed=0):
        random = np.random.default_rng(seed)
        centers = random.uniform(0.25, 0.75, (N_CLASSES, n_features))
        labels = np.arange(N_TRAIN + N_TEST) % N_CLASSES
        noise = random.normal(scale=0.15, size=(len(labels), n_features))
        X = np.clip(centers[labels] + noise, 0.0, 1.0)
        self.X, self.y = X[N_TRAIN:], labels[N_TRAIN:]
        self.model = build().fit(X[:N_TRAIN], labels[:N_TRAIN])
        is_network = isinstance(self.model, RobustClassifier)
        method = {"method": "attack"} if is_network else {"method": "exact", "timeout": 1.0}
        radius = pointwise_robustness(self.model, self.X[:32], random_state=0, **method).radius
        self.epsilon = round(float(np.median(radius[np.isfinite(radius)])), 4)
        self.accuracy = self.model.score(self.X, self.y)
        self.property = ClassificationRobustness(self.epsilon)
        self.same_label = ClassificationRobustness(self.epsilon, reference="prediction")
        if is_network:
            self.autoencoder = Autoencoder(
                max(2, n_features // 8), bounds=(0.0, 1.0), max_epochs=1, random_state=0
            ).fit(X[:N_TRAIN])


def network(n_features, width, depth):
    def build():
        return RobustClassifier(
            hidden_layer_sizes=(width,) * depth, max_epochs=1, batch_size=16, random_state=0
        )

    return Question(n_features, build)


TREES = {
    "tree, 64 leaves": lambda: DecisionTreeClassifier(max_leaf_nodes=64, random_state=0),
    "forest, 10 of depth 5": lambda: RandomForestClassifier(10, max_depth=5, random_state=0),
    "forest, 40 of depth 5": lambda: RandomForestClassifier(40, max_depth=5, random_state=0),
    "boosted, 4 rounds of depth 3": lambda: GradientBoostingClassifier(
        n_estimators=4, random_state=0
    ),
}


def scored(make):
    """Return a method: a scorer of the question's property, which is evaluated."""

    def method(question, X, y):
        scorer = make(question).set_params(random_state=0)
        return scorer.evaluate(question.model, X, y)

    return method


def proved(verifier, **params):
    return scored(lambda q: ConstraintSatisfaction(q.property, verifier, **params))


def attacked(attack=None):
    return scored(lambda q: ConstraintSecurity(q.property, attack))


def radius(method, **params):
    def measured(question, X, y):
        params_here = params | {"epsilon_max": 2 * question.epsilon, "random_state": 0}
        return pointwise_robustness(question.model, X, y=y, method=method, **params_here)

    return measured


def lipschitz(question, X, y):
    property = LipschitzRobustness(question.epsilon, lipschitz=10.0)
    return ConstraintSatisfaction(property, LipschitzBounds()).evaluate(question.model, X, y)


# Name: (samples of a task, method). One sample a task is how complete methods work.
METHODS = {
    "predict": (1024, lambda q, X, y: q.model.predict(X)),
    "ConstraintAccuracy, 100 samples": (1024, scored(lambda q: ConstraintAccuracy(q.property))),
    "ConstraintSecurity, FGSM": (1024, attacked(FGSM())),
    "ConstraintSecurity, PGD(40)": (1024, attacked(PGD(40))),
    "ConstraintSecurity, default": (1024, attacked()),
    "ConstraintSecurity, AutoPGD": (1024, attacked(AutoPGD())),
    "ConstraintSatisfaction, ibp": (256, proved(Bounds("ibp"))),
    "ConstraintSatisfaction, crown": (256, proved(Bounds())),
    "ConstraintSatisfaction, alpha-crown": (256, proved(Bounds("alpha-crown"))),
    "ConstraintSatisfaction, LipschitzBounds": (256, lipschitz),
    f"ConstraintSatisfaction, Exact({DOMAINS} domains)": (1, proved(Exact(max_domains=DOMAINS))),
    "ConstraintSatisfaction, default Cascade": (1, proved(Cascade(timeout=10.0))),
    "AdversarialFrequency, lp": (
        64,
        scored(lambda q: AdversarialFrequency(q.epsilon, bounds=(0.0, 1.0))),
    ),
    "AdversarialSeverity, lp": (64, scored(lambda q: AdversarialSeverity(q.epsilon))),
    "AdversarialFrequency, attack": (
        64,
        scored(lambda q: AdversarialFrequency(q.epsilon, method="attack")),
    ),
    "pointwise, polished": (64, radius("polished")),
    "pointwise, lbfgs": (64, radius("lbfgs")),
    "pointwise, certified": (64, radius("certified")),
    "MarginRobustness": (256, scored(lambda q: MarginRobustness())),
    "MarginRobustness, FastMinimumNorm": (
        256,
        scored(lambda q: MarginRobustness(attack=FastMinimumNorm())),
    ),
    "GlobalRobustness": (256, scored(lambda q: GlobalRobustness(q.same_label, tolerance=0.02))),
    "GlobalRobustness, quantitative": (
        256,
        scored(
            lambda q: GlobalRobustness(
                q.same_label, tolerance=0.02, quantitative="linf-probabilities"
            )
        ),
    ),
    "RobustnessScore, uniform-share": (
        1024,
        scored(lambda q: RobustnessScore.preset("uniform-share", q.epsilon)),
    ),
    "ManifoldRobustness": (1024, scored(lambda q: ManifoldRobustness(q.autoencoder))),
    "CorruptionRobustness": (1024, scored(lambda q: CorruptionRobustness())),
    "ViolationProbability": (16, scored(lambda q: ViolationProbability(q.property))),
    "ConstraintSatisfaction, Marabou(2 s)": (1, proved(Marabou(), timeout=2.0)),
}
FEW = {"ConstraintSatisfaction, Marabou(2 s)": 8}  # points at most, where one takes seconds
FEWEST = 32  # points at least of methods that take them one by one, where few take long

TREE_METHODS = {
    "predict": (1024, METHODS["predict"][1]),
    "ConstraintAccuracy, 100 samples": METHODS["ConstraintAccuracy, 100 samples"],
    "ConstraintSatisfaction, TreeVerifier": (
        256,
        proved(TreeVerifier(max_boxes=1000)),
    ),
    "pointwise, exact": (64, radius("exact", timeout=1.0)),
}
