"""Races of candidates, compared in pairs."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skrobust.model_selection._race import PairedRace


def race_through(values, sizes, confidence=0.95, width=1.0):
    """Run a race to its end; return the race and the number of values that were asked for."""
    race = PairedRace(*values.shape, width, confidence)
    asked = 0
    for size in sizes:
        batch = values[race.is_open, race.n_seen : race.n_seen + size]
        asked += batch.size
        race.add(batch)
    return race, asked


def test_one_who_loses_everywhere_is_dropped_early():
    values = np.repeat([[1.0], [0.0]], 200, axis=1)
    race, _ = race_through(values, [10] * 20)
    assert race.is_open.tolist() == [True, False]
    # The gambler of the highest stake has (1 + 0.9)^t, and one of eight equal shares.
    n_least = int(np.ceil(np.log(8 / 0.05) / np.log(1.9)))
    assert not race_through(values[:, :400], [n_least + 1])[0].is_open[1]
    assert race_through(values, [n_least // 2])[0].is_open[1]


def test_equals_stay_to_the_end():
    values = np.random.default_rng(0).integers(0, 2, size=(1, 50)).repeat(3, axis=0).astype(float)
    race, asked = race_through(values, [10] * 5)
    assert race.is_open.all()
    assert asked == values.size


def test_who_cannot_catch_up_is_dropped_whatever_the_confidence():
    values = np.array([[1.0] * 6 + [0.0] * 4, [0.0] * 6 + [1.0] * 4])
    kept = race_through(values, [6], confidence=1 - 1e-12)[0]
    assert kept.is_open.all()  # a lead of 6, and 4 items left: known once the next one is bet on
    dropped = race_through(values, [6, 1], confidence=1 - 1e-12)[0]
    assert dropped.is_open.tolist() == [True, False]


def test_batches_do_not_matter_for_the_bets():
    values = np.random.default_rng(1).random((3, 40))
    one, many = (PairedRace(3, 40, 5.0) for _ in range(2))
    one.add(values)
    for column in values.T:
        many.add(column[:, None])
    assert one.is_open.all()
    assert many.n_seen == one.n_seen == 40
    np.testing.assert_allclose(one._capital, many._capital, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_bets_against_what_holds_gain_nothing_in_the_mean(seed):
    """Over all orders of a few items, exactly: the supermartingale behind the guarantee."""
    items = np.random.default_rng(seed).integers(0, 2, size=(2, 4)).astype(float)
    items = items[items.sum(axis=1).argsort()]
    for n_seen in range(1, 4):
        capital = []
        for order in permutations(range(4), n_seen):
            race = PairedRace(2, 4, 1.0)
            race.add(items[:, order])
            assert race.is_open[1]
            if race.is_open[0]:
                capital.append(np.exp(race._capital[:, 0, 1]))
        means = np.mean(capital, axis=0)
        assert (means <= 1 + 1e-9).all()
        if np.ptp(items.sum(axis=1)) == 0:  # each bet is fair then, for each stake
            np.testing.assert_allclose(means, 1.0)


@pytest.mark.parametrize("first", [[1.0, 1.0], [-1.0, -1.0], [0.0, 1.0], [0.0, -1.0]])
def test_each_bet_is_fair_where_the_totals_are_equal_whatever_came_before(first):
    """The conditional mean is that of what is left: it falls as one side gets ahead."""
    rest = np.r_[np.full(6, -sum(first) / 6), 0.25, -0.25]
    gains = []
    for last in rest:
        race = PairedRace(2, 10, 1.0)
        race.add(np.array([first, [0.0, 0.0]]))
        before = race._capital[:, 0, 1].copy()
        race.add(np.array([[last], [0.0]]))
        gains.append(np.exp(race._capital[:, 0, 1] - before))
    np.testing.assert_allclose(np.mean(gains, axis=0), 1.0)
    assert np.ptp(gains, axis=0).min() > 0


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.15])
def test_the_best_survives_in_95_of_100_races_at_95_percent(spread):
    rng = np.random.default_rng(0)
    kept, asked, n_candidates, n_items = 0, 0, 4, 300
    for _ in range(100):
        # Most items are alike for all candidates, as images are.
        shared = rng.random(n_items)
        own = np.where(rng.random((n_candidates, n_items)) < 0.7, shared, rng.random(n_items))
        shares = 0.7 - spread * np.arange(n_candidates)
        values = (own < shares[:, None]).astype(float)
        race, used = race_through(values, [32, 48, 72, 108, 40])
        kept += race.is_open[values.sum(axis=1).argmax()]
        asked += used / values.size
    assert kept >= 95
    if spread == 0.15:
        assert asked < 0.6 * 100


def test_dropped_for_other_reasons():
    race = PairedRace(3, 10, 1.0)
    race.drop([1])
    assert race.is_open.tolist() == [True, False, True]
    race.add(np.array([[1.0], [0.0]]))
    assert race._leads.tolist() == [[0.0, 1.0], [-1.0, 0.0]]


def test_the_width_is_that_of_differences():
    values = 4 * np.repeat([[1.0], [0.0]], 50, axis=1)
    race = race_through(values, [10] * 5, width=4.0)[0]
    plain = race_through(values / 4, [10] * 5)[0]
    assert race.is_open.tolist() == plain.is_open.tolist() == [True, False]
