"""Searches over candidates whose score is robustness."""

from skrobust.model_selection._racing import RacingSearchCV

__all__ = ["RacingSearchCV"]
