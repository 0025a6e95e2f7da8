"""Verifiers: model x property -> verdicts that hold for every point of the ball."""

from skrobust.verification._base import Reason, Verdict, Verification, Verifier
from skrobust.verification._export import export_query
from skrobust.verification._trees import TreeVerifier, tree_distances

__all__ = [
    "Reason",
    "TreeVerifier",
    "Verdict",
    "Verification",
    "Verifier",
    "export_query",
    "tree_distances",
]
