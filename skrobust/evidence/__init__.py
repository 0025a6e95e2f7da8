"""Verdicts as files, and the checker that needs NumPy alone.

``python -m skrobust.evidence check FOLDER`` checks a folder. ``_checker.py`` and the files that it
imports do the same where neither skrobust nor torch is installed.
"""

from skrobust.evidence import _smooth_nodes  # noqa: F401  (registers itself)
from skrobust.evidence._checking import Evidence, check
from skrobust.evidence._checking import opened as opened
from skrobust.evidence._checking import why_rejected as why_rejected
from skrobust.evidence._claims import about_point as about_point
from skrobust.evidence._claims import about_reach as about_reach
from skrobust.evidence._claims import around_valid as around_valid
from skrobust.evidence._claims import asked as asked
from skrobust.evidence._claims import claimed_rows as claimed_rows
from skrobust.evidence._claims import joined_rows as joined_rows
from skrobust.evidence._claims import reference_error as reference_error
from skrobust.evidence._completing import completed as completed
from skrobust.evidence._ensembles import ensemble_arrays as ensemble_arrays
from skrobust.evidence._network import network_arrays as network_arrays
from skrobust.evidence._network import stored_node
from skrobust.evidence._relus import pairs as pairs
from skrobust.evidence._relus import terms_of as terms_of
from skrobust.evidence._rules import Rejected as Rejected
from skrobust.evidence._writing import Writer as Writer
from skrobust.evidence._writing import claim_bytes as claim_bytes

__all__ = ["Evidence", "check", "stored_node"]
