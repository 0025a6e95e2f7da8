"""Errors and warnings: what each one can be caught as, and that it says what it is about."""

import warnings

import pytest

from skrobust import exceptions

KINDS = {
    "AttackWarning": RuntimeWarning,
    "DivergedTrainingError": FloatingPointError,
    "InfeasibleWarning": UserWarning,
    "LostWorkerWarning": RuntimeWarning,
    "MissingEvidenceWarning": RuntimeWarning,
    "ReferenceWarning": UserWarning,
    "SolverDisagreementWarning": RuntimeWarning,
    "ToleranceWarning": UserWarning,
    "UncachedWarning": UserWarning,
    "UnresolvedWarning": RuntimeWarning,
    "UnsupportedModelError": TypeError,
    "UnsupportedPropertyError": ValueError,
}


def test_every_one_is_listed():
    defined = {name for name, value in vars(exceptions).items() if isinstance(value, type)}
    assert defined == set(exceptions.__all__) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_each_is_caught_as_the_kind_of_python_that_it_is(name):
    kind = getattr(exceptions, name)
    assert issubclass(kind, KINDS[name])
    assert issubclass(kind, Warning) == name.endswith("Warning")
    with pytest.raises(KINDS[name], match="42"):
        raise kind("42")


@pytest.mark.parametrize("name", [name for name in KINDS if name.endswith("Warning")])
def test_one_warning_can_be_silenced_alone(name):
    kind = getattr(exceptions, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", kind)
        warnings.warn("silent", kind, stacklevel=1)
        with pytest.raises(UserWarning):
            warnings.warn("heard", UserWarning, stacklevel=1)
