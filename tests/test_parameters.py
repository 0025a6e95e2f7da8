"""Parameters that are objects: defaults that are made when needed, and lists of named parts."""

import pytest
from sklearn.base import BaseEstimator, clone

from skrobust._parameters import DefaultParts, NamedParts
from skrobust.attacks import FGSM, PGD
from skrobust.attacks._base import Attack
from skrobust.scorers import ConstraintSecurity
from skrobust.verification import Bounds, Verifier


class Walk(DefaultParts, BaseEstimator):
    def __init__(self, attack=None, verbose=0):
        self.attack = attack
        self.verbose = verbose

    def _default_parts(self):
        return {"attack": PGD(7)}


class Chain(NamedParts, BaseEstimator):
    _parts_name = "stages"

    def __init__(self, stages=None, timeout=None):
        self.stages = stages
        self.timeout = timeout

    def _default_list(self):
        return [PGD(7), Bounds()]

    def check(self):
        self._check_parts((Attack, Verifier), "PGD()")
        return self


# ---- a default --------------------


def test_a_default_is_listed_and_reached_but_not_written_out():
    walk = Walk()
    assert walk.get_params()["attack__n_steps"] == 7
    assert walk.get_params()["attack"] is None
    assert "attack__n_steps" not in walk.get_params(deep=False)
    assert walk.set_params(verbose=1).attack is None
    assert walk.set_params(attack__n_steps=3).attack == walk.attack
    assert (walk.attack.n_steps, walk.verbose) == (3, 1)
    assert clone(walk).attack.n_steps == 3


def test_what_is_not_listed_is_refused_and_leaves_the_default():
    walk = Walk()
    with pytest.raises(ValueError, match="Invalid parameter 'n_stairs' for estimator PGD"):
        walk.set_params(attack__n_stairs=3)
    with pytest.raises(ValueError, match="Invalid parameter 'attacks' for estimator Walk"):
        walk.set_params(attacks__n_steps=3)
    assert walk.attack is None


def test_a_given_part_is_the_one_that_is_set():
    attack = FGSM()
    walk = Walk(attack)
    assert "attack__n_steps" not in walk.get_params()
    walk.set_params(attack__objective="cross-entropy")
    assert walk.attack is attack
    assert attack.objective == "cross-entropy"
    walk.set_params(attack=None, attack__n_steps=2)
    assert walk.attack.n_steps == 2


def test_all_that_a_scorer_lists_can_be_set():
    scorer = ConstraintSecurity(None)
    for name, value in scorer.get_params().items():
        clone(scorer).set_params(**{name: value})


# ---- named parts --------------------


def test_bare_parts_are_named_after_their_classes():
    chain = Chain([PGD(), Bounds("ibp"), Bounds()])
    assert list(chain.named_parts) == ["pgd", "bounds_1", "bounds_2"]
    assert chain.get_params()["bounds_1__method"] == "ibp"
    assert chain.get_params()["bounds_2"] is chain.stages[2]
    assert chain.get_params(deep=False) == {"stages": chain.stages, "timeout": None}


def test_pairs_have_the_names_given():
    chain = Chain([("fast", PGD(3)), ("slow", PGD(90)), Bounds()])
    assert list(chain.named_parts) == ["fast", "slow", "bounds"]
    chain.set_params(slow__n_steps=50, fast=FGSM(), timeout=2.0)
    assert [name for name, _ in chain.stages[:2]] == ["fast", "slow"]
    assert isinstance(chain.stages[0][1], FGSM)
    assert (chain.stages[1][1].n_steps, chain.timeout) == (50, 2.0)
    assert isinstance(chain.stages[2], Bounds)


def test_a_part_is_replaced_and_set_at_once():
    chain = Chain([PGD(3)]).set_params(pgd=PGD(5), pgd__n_restarts=4)
    assert (chain.stages[0].n_steps, chain.stages[0].n_restarts) == (5, 4)


def test_the_default_list_is_written_out_only_where_a_part_is_set():
    chain = Chain()
    assert chain.get_params()["pgd__n_steps"] == 7
    assert chain.set_params(timeout=1.0).stages is None
    chain.set_params(pgd__n_steps=3)
    assert [type(part) for part in chain.stages] == [PGD, Bounds]
    assert chain.stages[0].n_steps == 3
    assert chain.set_params(stages=None).stages is None


@pytest.mark.parametrize("name", ["pgd__n_stairs", "fgsm", "fgsm__objective", "limit"])
def test_parts_that_are_not_listed_are_refused(name):
    chain = Chain()
    assert name not in chain.get_params()
    with pytest.raises(ValueError, match="Invalid parameter"):
        chain.set_params(**{name: 1})
    assert chain.stages is None


def test_all_that_is_listed_can_be_set():
    for chain in (Chain(), Chain([("a", PGD()), Bounds()])):
        for name, value in chain.get_params().items():
            clone(chain).set_params(**{name: value})


def test_copies_have_parts_of_their_own():
    chain = Chain([PGD(3), ("b", Bounds())])
    copied = clone(chain).set_params(pgd__n_steps=9)
    assert (chain.stages[0].n_steps, copied.stages[0].n_steps) == (3, 9)
    assert copied.stages[1][0] == "b"


@pytest.mark.parametrize("stages", [3, "pgd", [], {}])
def test_what_is_no_list_is_refused_by_the_check_only(stages):
    chain = Chain(stages)
    assert chain.get_params()["stages"] == stages
    assert chain.set_params(timeout=1.0).timeout == 1.0
    with pytest.raises(TypeError, match=r"Got stages=.*None, or a list of parts"):
        chain.check()


@pytest.mark.parametrize(
    "names", [("a", "a"), ("a__b",), ("timeout",), ("",), (3,), (["a"],)], ids=repr
)
def test_names_that_are_refused(names):
    chain = Chain([(name, PGD()) for name in names])
    chain.get_params()
    with pytest.raises(ValueError, match=r"Got stages with the names .* different strings"):
        chain.check()


def test_parts_are_checked():
    with pytest.raises(TypeError, match=r"Got b=3, but expected an Attack or a Verifier, such as"):
        Chain([("b", 3)]).check()
    with pytest.raises(ValueError, match="Got n_steps=0"):
        Chain([PGD(0)]).check()
    assert Chain().check().stages is None
