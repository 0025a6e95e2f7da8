"""A fit's random numbers are its own: threads equal the serial fit, torch's state stays."""

import threading

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from joblib import Parallel, delayed, parallel_config
from sklearn.model_selection import GridSearchCV, cross_val_score
from torch import nn
from torch.nn import functional

from skrobust import RobustClassifier
from skrobust.estimators._random import Generators, OwnDraws, Watch, is_known
from skrobust.properties import ClassificationRobustness as CR
from skrobust.training import (
    AdversarialTraining,
    DataAugmentation,
    StandardTraining,
    TrainingRegime,
)
from tests.estimators._models import scripted


class Stochastic(nn.Module):
    """Code of one's own: a layer that is left out at random, and noise."""

    def __init__(self, width=8):
        super().__init__()
        self.first, self.second = nn.Linear(4, width), nn.Linear(width, 2)

    def forward(self, x):
        if self.training and torch.rand(()) < 0.5:
            x = x + 0.01 * torch.randn_like(x)
        return self.second(functional.dropout(self.first(x).relu(), 0.3, self.training))


class Drawing(TrainingRegime):
    """Draws from torch's global generator, from the second epoch on."""

    def loss(self, state, step):
        noise = 0.05 * torch.randn(step.x.shape) if step.epoch else 0.0
        logits = step.module(step.x + noise)
        return step.task_loss(logits), logits


def dropout():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2))


CASES = {
    "perceptron": {"training": AdversarialTraining(), "property": CR(0.1)},
    "samples": {"training": DataAugmentation(), "property": CR(0.1)},
    "dropout": {"module": dropout},
    "dropout in adversarial training": {
        "module": dropout,
        "training": AdversarialTraining(),
        "property": CR(0.1),
    },
    "code of one's own": {"module": Stochastic},
    "a regime that draws": {"training": Drawing()},
}


def model(**params):
    return RobustClassifier(
        hidden_layer_sizes=8, max_epochs=4, batch_size=20, random_state=0, **params
    )


def outputs(X, y, **params):
    return model(**params).fit(X, y).partial_fit(X, y).decision_function(X)


@pytest.mark.parametrize("params", CASES.values(), ids=CASES)
def test_fits_in_threads_are_the_serial_fit(blobs, params):
    serial = outputs(*blobs, **params)
    state = torch.get_rng_state()
    jobs = [delayed(outputs)(*blobs, **params) for _ in range(4)]
    for threaded in Parallel(4, backend="threading")(jobs):
        np.testing.assert_array_equal(threaded, serial)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)  # nor does the global state tell in a fit
    np.testing.assert_array_equal(outputs(*blobs, **params), serial)


def test_another_thread_that_draws_does_not_matter(blobs):
    serial, stop = outputs(*blobs, module=Stochastic), threading.Event()

    def draw():
        while not stop.is_set():
            torch.rand(3)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        np.testing.assert_array_equal(outputs(*blobs, module=Stochastic), serial)
    finally:
        stop.set()
        thread.join()


def test_searches_in_threads_are_serial_ones(blobs):
    grid = {"training": [StandardTraining(), AdversarialTraining()], "lr": [0.01, 0.03]}
    results = []
    for n_jobs in (1, 4):
        with parallel_config("threading", n_jobs=n_jobs):
            search = GridSearchCV(model(module=dropout, property=CR(0.1)), grid, cv=2).fit(*blobs)
            scores = cross_val_score(model(module=dropout), *blobs, cv=3)
        results.append((search.cv_results_["split1_test_score"], search.best_index_, scores))
    for serial, threaded in zip(*results, strict=True):
        np.testing.assert_array_equal(threaded, serial)


def test_the_order_of_batches_does_not_depend_on_the_regime(blobs):
    class Order(TrainingRegime):
        def __init__(self, orders, n_draws):
            self.orders, self.n_draws = orders, n_draws

        def loss(self, state, step):
            self.orders.append(step.index.tolist())
            torch.rand(self.n_draws, generator=step.generator)
            return step.task_loss(step.logits), step.logits

    orders = [], []
    for n_draws, order in zip((0, 7), orders, strict=True):
        model(training=Order(order, n_draws)).fit(*blobs)
    assert orders[0] == orders[1] and len(set(map(str, orders[0]))) == 16


def test_prediction_draws_nothing(blobs):
    X, y = blobs
    fitted = model().fit(X, y)
    state = torch.get_rng_state()
    fitted.predict(X)
    assert torch.equal(torch.get_rng_state(), state)


# ---- the modes of torch behind it --------------------

Q = torch.ones(1, 2, 3, 4)
X = torch.full((2, 8), 0.5)
DRAWS = {
    "rand": lambda: torch.rand(3),
    "rand of a type": lambda: torch.rand(3, 2, dtype=torch.float64),
    "rand_like": lambda: torch.rand_like(X),
    "randn": lambda: torch.randn(2, 3),
    "randn_like": lambda: torch.randn_like(X),
    "randint": lambda: torch.randint(99, (9,)),
    "randint from": lambda: torch.randint(2, 99, (9,)),
    "randint_like": lambda: torch.randint_like(X, 2, 99),
    "randperm": lambda: torch.randperm(30),
    "normal": lambda: torch.normal(X, X),
    "bernoulli": lambda: X.bernoulli(),
    "exponential": lambda: torch.empty(5).exponential_(),
    "multinomial": lambda: torch.multinomial(X, 5),
    "weights": lambda: nn.Linear(3, 3).weight,
    "dropout": lambda: functional.dropout(torch.ones(30)),
    "fused dropout": lambda: torch.native_dropout(torch.ones(30), 0.5, True)[0],
    "alpha dropout": lambda: functional.alpha_dropout(X, 0.5, True),
    "rrelu": lambda: functional.rrelu(-X, training=True),
    "lstm": lambda: nn.LSTM(3, 3, 2, dropout=0.5)(torch.ones(2, 4, 3))[0],
    "attention": lambda: functional.scaled_dot_product_attention(Q, Q, Q, dropout_p=0.5),
    "transformer": lambda: nn.TransformerEncoderLayer(4, 2)(torch.ones(2, 3, 4)),
    "gumbel": lambda: functional.gumbel_softmax(X),
    "gamma": lambda: torch.distributions.Gamma(X, X).rsample(),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_every_draw_is_served(draw):
    results = []
    for seed, global_seed in ((0, 1), (0, 2), (3, 2)):
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        draws = OwnDraws(Generators(seed))
        with draws:
            results.append(draw().detach())
        assert draws.count > 0
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_a_generator_that_is_given_is_used():
    draws = OwnDraws(Generators(0))
    with draws:
        served = torch.rand(4, generator=torch.Generator().manual_seed(7))
    assert torch.equal(served, torch.rand(4, generator=torch.Generator().manual_seed(7)))
    assert draws.count == 0


def test_fused_dropout_is_dropout():
    x = torch.arange(1.0, 1001).requires_grad_()
    with OwnDraws(Generators(0)):
        output, kept = torch.native_dropout(x, 0.25, True)
    assert torch.equal(output, torch.where(kept, x / 0.75, 0.0))
    assert 0.7 < kept.float().mean() < 0.8
    output.sum().backward()
    torch.testing.assert_close(x.grad, kept / 0.75)
    with OwnDraws(Generators(0)):
        assert (torch.native_dropout(x, 1.0, True)[0] == 0).all()
        assert torch.equal(torch.native_dropout(x, 0.5, False)[0], x)


def test_the_watch_learns_which_functions_draw():
    module, x = Stochastic().train(), torch.ones(5, 4)
    watch = Watch(Generators(0), known=False)
    state = torch.get_rng_state()
    for k in range(8):
        with watch.step(is_first=k == 0):
            module(x)
    # The branch that adds noise may not have run; it is served by its name.
    assert {torch.rand, functional.dropout} <= watch.functions
    assert functional.linear not in watch.functions
    assert not watch.everywhere
    assert torch.equal(torch.get_rng_state(), state)


def test_what_torchscript_draws_is_served():
    module = scripted(nn.Sequential(nn.Linear(3, 4), nn.Dropout())).train()
    watch, state = Watch(Generators(0), known=False), torch.get_rng_state()
    for k in range(4):
        with watch.step(is_first=k == 0):
            module(torch.ones(5, 3))
    assert watch.everywhere
    assert torch.equal(torch.get_rng_state(), state)


def test_a_watch_that_finds_nothing_is_off():
    watch = Watch(Generators(0), known=True)
    with watch.step(is_first=True):
        nn.functional.relu(X)
    assert watch.functions == set() and not watch.everywhere
    with watch.step(is_first=True):
        torch.rand(3)
    assert watch.draws.count == 0


def test_what_draws_late_is_served():
    # A branch that is taken in the third step for the first time.
    watch, state = Watch(Generators(0), known=False), torch.get_rng_state()
    for k in range(4):
        with watch.step(is_first=k == 0):
            if k >= 2:
                torch.rand_like(X)
    assert watch.draws.count == 2
    assert torch.equal(torch.get_rng_state(), state)


def test_known_code():
    assert is_known(dropout(), nn.CrossEntropyLoss(), AdversarialTraining())
    assert not is_known(nn.Sequential(Stochastic()))
    assert not is_known(Drawing())
    assert is_known(nn.Linear, torch.optim.Adam, StandardTraining)
    assert not is_known(Stochastic) and not is_known(lambda shape: nn.Linear(*shape, 1))


def test_checkpoints_around_dropout_are_refused(blobs):
    class Checkpointed(Stochastic):
        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=False)

    with pytest.raises(ValueError, match="draws random numbers while gradients are computed"):
        model(module=Checkpointed).fit(*blobs)
