"""Verifiers: model x property -> verdicts that hold for every point of the ball."""

from skrobust.trees import tree_distances
from skrobust.verification._base import Verifier
from skrobust.verification._bounds import Bounds
from skrobust.verification._cascade import Cascade
from skrobust.verification._evidence import check_evidence as check_evidence
from skrobust.verification._exact import Exact
from skrobust.verification._lipschitz import LipschitzBounds, lipschitz_bound
from skrobust.verification._marabou import Marabou
from skrobust.verification._recorders import make_recorder as make_recorder
from skrobust.verification._result import Reason, Verdict, Verification, VerificationBuilder
from skrobust.verification._sets import within_set as within_set
from skrobust.verification._steps import Encoding, Step
from skrobust.verification._trees import TreeVerifier
from skrobust.verification._vnnlib import export_query
from skrobust.verification._vnnlib_reader import Instance, read_instances, read_query

__all__ = [
    "Bounds",
    "Cascade",
    "Encoding",
    "Exact",
    "Instance",
    "LipschitzBounds",
    "Marabou",
    "Reason",
    "Step",
    "TreeVerifier",
    "Verdict",
    "Verification",
    "VerificationBuilder",
    "Verifier",
    "export_query",
    "lipschitz_bound",
    "read_instances",
    "read_query",
    "tree_distances",
]
