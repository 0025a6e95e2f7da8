"""What `robustness_report` returns."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skrobust.networks import import_pandas
from skrobust.properties import RobustnessProperty
from skrobust.report._card import card_of, sections_of
from skrobust.report._examples import WorstExamples
from skrobust.report._page import page_of
from skrobust.report._statements import assumed, not_checked
from skrobust.statistics import Interval

__all__ = ["RobustnessReport"]


@dataclass(frozen=True, eq=False, repr=False)
class RobustnessReport:
    """What `skrobust.robustness_report` returns.

    Parameters
    ----------
    estimator : object
        What was measured.
    property : RobustnessProperty
        What shall hold in the balls.
    epsilons : ndarray of shape (n_epsilons,)
        In rising order.
    scale : ndarray of shape (n_features,) or None
        Units of the features, in which epsilons are.
    accuracy : float
    accuracy_interval : Interval
        Clopper-Pearson.
    labels, predictions : ndarray of shape (n_samples,)
        True, and of the estimator.
    curves : dict of str to RobustnessCurve
        "constraint_accuracy", "security", "satisfaction" (the share that is proved), "surviving"
        (the share that the verifier does not falsify), "frequency", "severity" and
        "global_robustness", without those that an estimator of this kind cannot have.
    results : dict of str to tuple of ScoreResult
        The full result of each scorer, one an epsilon.
    not_measured : dict of str to str
        Scores that are not in `curves`, and the reason.
    messages : tuple of str
        Warnings of the scorers, and what they do without.
    examples : WorstExamples
        Of the samples that are classified right, those that the smallest changes break.
    feature_names : tuple of str
    image_shape : tuple of int or None
    attack, verifier : object
    evidence : str, path-like or None
        The folder of the evidence files.
    details : dict of str to str
        What only people know.
    """

    estimator: object
    property: RobustnessProperty
    epsilons: np.ndarray
    scale: np.ndarray | None
    accuracy: float
    accuracy_interval: Interval
    labels: np.ndarray
    predictions: np.ndarray
    curves: dict
    results: dict
    not_measured: dict
    messages: tuple
    examples: WorstExamples
    feature_names: tuple
    image_shape: tuple | None
    attack: object
    verifier: object
    evidence: object
    details: dict

    @property
    def assumed(self):
        """What the numbers rest on, as sentences."""
        return assumed(self)

    @property
    def not_checked(self):
        """What nothing here says anything about, as sentences."""
        return not_checked(self)

    def by_class(self):
        """Return a dict for each class: its samples, and its shares at each epsilon.

        Returns
        -------
        list of dict
            "label", "n_samples", "accuracy", and "security" and "satisfaction" where they were
            measured, each a list of one share an epsilon.
        """
        held = {
            "security": [result.holds for result in self.results.get("security", ())],
            "satisfaction": [
                result.verdicts == "verified" for result in self.results.get("satisfaction", ())
            ],
        }
        groups = []
        for label in np.unique(self.labels):
            of_class = self.labels == label
            accuracy = float((self.predictions == label)[of_class].mean())
            group = {"label": label, "n_samples": int(of_class.sum()), "accuracy": accuracy}
            for name, each in held.items():
                if each:
                    group[name] = [float(holds[of_class].mean()) for holds in each]
            groups.append(group)
        return groups

    def to_frame(self):
        """Return a pandas DataFrame with a row for each score and epsilon.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pd = import_pandas("to_frame")
        columns = ("score", "epsilon", "value", "low", "high")
        rows = [
            (name, *values)
            for name, curve in self.curves.items()
            for values in zip(self.epsilons, curve.scores, curve.low, curve.high, strict=True)
        ]
        return pd.DataFrame(rows, columns=columns)

    def to_dict(self):
        """Return all figures and statements as plain values, with the fields of a model card.

        Returns
        -------
        dict
            "model_details", "intended_use", "factors", "metrics", "evaluation_data",
            "training_data", "quantitative_analyses", "ethical_considerations" and
            "caveats_and_recommendations", as in section 4 of Mitchell et al. What only people
            know comes from `details`, and is None where nothing is said. NaN and infinity are
            None.

        References
        ----------
        Mitchell et al., "Model cards for model reporting", FAT* 2019, section 4.
        """
        return card_of(self)

    def to_json(self, path=None):
        """Return `to_dict` as JSON text, and write it to a file where there is a path.

        Parameters
        ----------
        path : str or path-like, default=None

        Returns
        -------
        str
        """
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def to_card(self, card=None):
        """Add the report to a model card of skops, or to a new one.

        Parameters
        ----------
        card : skops.card.Card, default=None
            Gets a section "Robustness". None is a new card of the estimator.

        Returns
        -------
        skops.card.Card

        Raises
        ------
        ImportError
            If skops is not installed.
        """
        try:
            from skops.card import Card
        except ImportError:
            raise ImportError(
                "Got no skops, but to_card needs it. Install it with "
                'pip install "skrobust[cards]".'
            ) from None
        card = Card(self.estimator) if card is None else card
        return card.add(**sections_of(self))

    def to_html(self, path=None):
        """Return the report as one page of HTML, and write it to a file where there is a path.

        The page holds its pictures and its style, and loads nothing. It links the folder of
        evidence, relative to the file.

        Parameters
        ----------
        path : str or path-like, default=None

        Returns
        -------
        str

        Raises
        ------
        ImportError
            If matplotlib or jinja2 is not installed.
        """
        text = page_of(self, path)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def __repr__(self):
        name, n = type(self.estimator).__name__, len(self.labels)
        epsilons = ", ".join(f"{epsilon:g}" for epsilon in self.epsilons)
        return (
            f"RobustnessReport({name}, n_samples={n}, accuracy={self.accuracy:.4f}, "
            f"epsilons=[{epsilons}], curves={list(self.curves)})"
        )
