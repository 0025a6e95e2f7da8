"""Searches over candidates whose score is robustness, and what is read from their results."""

from skrobust.model_selection._front import ParetoFront, pareto_front
from skrobust.model_selection._racing import RacingSearchCV
from skrobust.model_selection._refit import LargestSubjectTo
from skrobust.model_selection._results import mean_scores as mean_scores
from skrobust.model_selection._results import named_results as named_results
from skrobust.model_selection._results import parameter_values as parameter_values
from skrobust.model_selection._results import parameters_of as parameters_of
from skrobust.model_selection._results import results_of as results_of

__all__ = ["LargestSubjectTo", "ParetoFront", "RacingSearchCV", "pareto_front"]
