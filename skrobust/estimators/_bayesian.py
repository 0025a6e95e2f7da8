"""A classifier that averages networks, whose weights are samples of their posterior."""

import copy

import numpy as np
import torch
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from skrobust._validation import (
    check_choice,
    check_device,
    check_flag,
    check_integer,
    check_real,
    check_seed,
    expected,
)
from skrobust.estimators._average import PosteriorAverage
from skrobust.estimators._base import LogitsClassifier, plain_array
from skrobust.estimators._convergence import effective_sample_size, r_hat, warn_if_poor
from skrobust.estimators._energy import PosteriorEnergy, prior_std, sampled_parameters
from skrobust.estimators._modules import check_float32
from skrobust.estimators._parameters import check_module_parameters, hidden_sizes, module_of
from skrobust.estimators._random import Generators, OwnDraws
from skrobust.exceptions import DivergedTrainingError, UnsupportedModelError
from skrobust.networks import Network, as_network, check_logits, outputs_of

__all__ = ["BayesianClassifier"]

_ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "sigmoid": torch.nn.Sigmoid}
_MONITORED = 20  # rows whose probabilities tell whether the chains agree


class BayesianClassifier(LogitsClassifier):
    """Average of neural networks whose weights Hamiltonian Monte Carlo samples by Pyro.

    The weights have a normal prior, and the likelihood is that of all rows at once: no
    mini-batches, so that a leapfrog step costs a pass over the data. `predict_proba` is the mean
    of the softmax over the samples. That mean is also the network that attacks and scores act on.

    Parameters
    ----------
    module : None, torch.nn.Module, or callable that returns one, default=None
        Network from inputs to logits, in float32; it runs in evaluation mode. None builds a
        perceptron from the data's shape. Parameters that ask for no gradient stay as they are.
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Hidden units of the perceptron, for ``module=None``.
    activation : {"relu", "tanh", "sigmoid"}, default="relu"
        Of the perceptron.
    step_size : float, default=0.01
        Size of a leapfrog step, in units of the weights (the mass matrix is the identity).
    num_steps : int, default=10
        Leapfrog steps of a proposal.
    n_samples : int, default=100
        Samples that are kept, in all; a multiple of `n_chains`.
    warmup : int, default=100
        Proposals at the start of each chain that are no samples.
    n_chains : int, default=2
        Chains, which take proposals in turn. With one there is no test of convergence.
    prior_scale : float, default=1.0
        Standard deviation of the prior; see `prior`.
    prior : {"isotropic", "fan-in"}, default="isotropic"
        Whether all weights and biases have `prior_scale`, or those of a matrix or kernel
        `prior_scale` over the root of the number of inputs of a unit, so that the outputs do not
        grow with the width.
    adapt_step_size : bool, default=False
        Whether `step_size` is only the first of each chain, and the warm-up looks for one whose
        rate of acceptance is about 0.8.
    input_shape : tuple of int or None, default=None
        Shape to give each row of `X` before the module sees it, such as (1, 28, 28).
    module_params : dict or None, default=None
        Arguments for `module`, where it is a callable.
    device : str, default="cpu"
        Torch device.
    random_state : int, RandomState instance or None, default=None
        Makes `fit` repeatable, in threads as well; torch's global generator is left alone.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Only where `X` has string column names.
    module_ : torch.nn.Module
        The average: from rows to the logarithm of the mean probabilities.
    samples_ : ndarray of shape (n_samples\\_, n_weights)
        Weights of each sample in float32, chain after chain; each is the parameters of the
        module one after the other.
    n_samples_ : int
        Samples that were kept, fewer than `n_samples` after an interrupt.
    interrupted_ : bool
        Whether the keyboard ended `fit`; see Notes.
    log_density_ : ndarray of shape (n_chains, n_samples\\_ / n_chains)
        Logarithm of prior times likelihood at each sample, up to a constant.
    acceptance_rate_ : ndarray of shape (n_chains,)
        Share of the proposals after the warm-up that were accepted.
    n_divergent_ : ndarray of shape (n_chains,)
        Proposals among these whose total energy grew by more than 1,000.
    step_size_ : ndarray of shape (n_chains,)
        As used after the warm-up.
    r_hat_, effective_sample_size_ : ndarray of shape (n_quantities,)
        Split R-hat, and the effective number of samples in all chains, of the log density and of
        the probability of its label at up to 20 rows, evenly spread over the training data.

    Notes
    -----
    Weights themselves have no useful R-hat: units can be exchanged, and signs turned, without a
    change of the function, so that chains in such modes of one posterior never meet. Hence the
    quantities are the log density and values of the function. NaN marks what cannot be told: all
    R-hats with one chain, or fewer than four samples of each; a quantity that never changed.

    A ConvergenceWarning says what is poor: an R-hat above 1.1, an effective sample size below 10
    for each chain, an acceptance rate below 0.4, one chain, an interrupt.

    An interrupt by the keyboard ends `fit`, as that of `RobustClassifier`: the samples that all
    chains have are kept, and `interrupted_` is True. In the warm-up there are none; then the
    place of each chain stands for one.

    Chains start at random weights, as those of training do: what torch draws for `module=None`,
    and what a callable returns. Those of a given module start all at its weights, which makes
    R-hat lenient.

    Memory is that of the samples (600 of a perceptron of three layers of 512 units for 784
    inputs: 2.2 GB) and, for attacks, about 0.2 GB more: samples are averaged in parts.

    Verification, which reads networks as pieces of linear functions, refuses an average of
    softmaxes by name. Attacks and sampling work.

    The study of global robustness with grids of such networks (step sizes 0.0001 to 0.01, 10 to
    20 steps, 100 to 600 samples) names neither prior, nor warm-up, chains, or how an attack meets
    a posterior. The defaults are a reading of it: a standard normal prior, as in the examples of
    Edward, which it used, and attacks on the mean prediction.

    References
    ----------
    Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte Carlo, 2011. Neal,
    "Bayesian learning for neural networks", 1996 (priors that shrink with the fan-in). Izmailov
    et al., "What are Bayesian neural network posteriors really like?", ICML 2021 (full-batch HMC
    of networks, and R-hat in function space).

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from skrobust.estimators import BayesianClassifier
    >>> X, y = make_moons(200, noise=0.2, random_state=0)
    >>> model = BayesianClassifier(
    ...     hidden_layer_sizes=10,
    ...     activation="tanh",
    ...     prior="fan-in",
    ...     step_size=0.12,
    ...     warmup=30,
    ...     random_state=0,
    ... ).fit(X[:40], y[:40])
    >>> model.samples_.shape  # of 2 * 10 + 10 + 10 * 2 + 2 weights
    (100, 52)
    >>> bool((model.r_hat_ < 1.1).all())
    True
    >>> model.score(X[40:], y[40:]) > 0.8
    True
    """

    def __init__(
        self,
        module=None,
        *,
        hidden_layer_sizes=(100,),
        activation="relu",
        step_size=0.01,
        num_steps=10,
        n_samples=100,
        warmup=100,
        n_chains=2,
        prior_scale=1.0,
        prior="isotropic",
        adapt_step_size=False,
        input_shape=None,
        module_params=None,
        device="cpu",
        random_state=None,
    ):
        self.module = module
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.step_size = step_size
        self.num_steps = num_steps
        self.n_samples = n_samples
        self.warmup = warmup
        self.n_chains = n_chains
        self.prior_scale = prior_scale
        self.prior = prior
        self.adapt_step_size = adapt_step_size
        self.input_shape = input_shape
        self.module_params = module_params
        self.device = device
        self.random_state = random_state

    def fit(self, X, y):
        """Sample the posterior of the weights, given the data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If Pyro is not installed.
        ValueError, TypeError
            If a parameter or the data is not valid; the message names it.
        UnsupportedModelError
            If the module is of a kind that cannot be sampled.
        DivergedTrainingError
            If the log density is not finite where a chain starts.
        """
        X, y = validate_data(self, plain_array(X), plain_array(y), dtype=np.float32)
        self._check()
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"Got y with the one class {classes.tolist()}, but expected at least two classes."
            )
        rows = torch.tensor(X, device=self.device)
        labels = torch.as_tensor(labels, device=self.device)
        chains, module = self._started(_chain_type(), rows, labels, len(classes))
        n_asked = int(self.n_samples) // len(chains)
        n_draws, samples, energies = _sampled(chains, int(self.warmup), n_asked)
        self.classes_, self.interrupted_ = classes, n_draws < n_asked
        self.log_density_ = -energies
        n_weights = samples.shape[2]
        names, samples = _names(module), samples.reshape(-1, n_weights)
        self.module_ = PosteriorAverage(module, names, samples, rows[:2])
        self.acceptance_rate_ = np.array(
            [c.n_accepted / c.n_proposals if c.n_proposals else np.nan for c in chains]
        )
        self.n_divergent_ = np.array([chain.n_divergent for chain in chains])
        self.step_size_ = np.array([chain.step_size for chain in chains])
        self._judge(rows, labels, n_draws)
        return self

    def _check(self):
        check_module_parameters(self)
        hidden_sizes(self.hidden_layer_sizes)
        check_choice("activation", self.activation, tuple(_ACTIVATIONS))
        # Torch multiplies weights by them in float32.
        largest = float(np.finfo(np.float32).max)
        check_real("step_size", self.step_size, low=0, high=largest, closed="right")
        check_real("prior_scale", self.prior_scale, low=0, high=largest, closed="right")
        check_integer("num_steps", self.num_steps, low=1)
        n_samples = check_integer("n_samples", self.n_samples, low=1)
        warmup = check_integer("warmup", self.warmup)
        n_chains = check_integer("n_chains", self.n_chains, low=1)
        if n_samples % n_chains:
            expectation = f"a multiple of n_chains={self.n_chains}, with as many samples of each"
            raise ValueError(expected("n_samples", self.n_samples, expectation))
        check_choice("prior", self.prior, ("isotropic", "fan-in"))
        if check_flag("adapt_step_size", self.adapt_step_size) and not warmup:
            expectation = "at least 1 where adapt_step_size=True, which it adapts"
            raise ValueError(expected("warmup", self.warmup, expectation))
        check_device(self.device)

    def _started(self, chain_type, rows, labels, n_classes):
        """Return chains at their first weights, and the module whose weights these are."""
        rng = check_seed(self.random_state)
        first, *others = (
            [int(seed) for seed in rng.randint(2**31 - 1, size=2)] for _ in range(self.n_chains)
        )
        module = self._module(rows, n_classes, first[0])
        # What cannot be averaged is refused now, not after the sampling.
        PosteriorAverage(copy.deepcopy(module), _names(module), _weights(module)[None], rows[:2])
        starts = [_weights(module)]
        starts += [_weights(self._module(rows, n_classes, initial)) for initial, _ in others]
        # One module for all chains, so that what is not sampled is the same in each.
        std = prior_std(module, float(self.prior_scale), self.prior)
        energy = PosteriorEnergy(module, rows, labels, std)
        chains = []
        for start, (_, draws) in zip(starts, (first, *others), strict=True):
            value, gradient = energy(start)
            if not (torch.isfinite(value) and torch.isfinite(gradient).all()):
                raise DivergedTrainingError(
                    f"Got a network whose log density at its first weights is {-value.item()}, "
                    "or has a gradient that is not finite. Scale the inputs, or set a larger "
                    "prior_scale."
                )
            chain = chain_type(
                energy,
                start,
                torch.Generator(rows.device).manual_seed(draws),
                step_size=float(self.step_size),
                num_steps=int(self.num_steps),
                warmup=int(self.warmup),
                adapt_step_size=bool(self.adapt_step_size),
            )
            chains.append(chain)
        return chains, module

    def _module(self, rows, n_classes, seed):
        with OwnDraws(Generators(seed)):
            activation = _ACTIVATIONS[self.activation]
            module = module_of(self, rows.shape[1], n_classes, activation).to(self.device)
        check_float32(module)
        if not sampled_parameters(module):
            raise UnsupportedModelError(
                "Got a module without parameters that ask for a gradient, but expected some: "
                "these are what is sampled."
            )
        outputs = outputs_of(module.eval(), rows[:2], f"with input_shape={self.input_shape!r}")
        check_logits(outputs, len(rows[:2]), n_classes)
        return module

    def _judge(self, rows, labels, n_draws):
        """Compute what tells whether the chains have converged, and warn where it is poor."""
        index = np.unique(np.linspace(0, len(rows) - 1, _MONITORED).astype(int))
        of_rows = self.module_.log_probabilities(rows[index])
        each_row = torch.arange(len(index), device=rows.device)
        of_labels = of_rows[:, each_row, labels[index]].double().exp().cpu()
        of_labels = of_labels.reshape(*self.log_density_.shape, len(index))
        draws = np.concatenate([self.log_density_[:, :, None], of_labels.numpy()], axis=2)
        self.r_hat_ = r_hat(draws)
        self.effective_sample_size_ = effective_sample_size(draws)
        warn_if_poor(
            self.r_hat_,
            self.effective_sample_size_,
            self.acceptance_rate_,
            n_draws,
            self.interrupted_,
        )

    @property
    def samples_(self):
        """Weights of each sample, of shape ``(n_samples_, n_weights)``."""
        check_is_fitted(self, "module_")
        return self.module_.samples.cpu().numpy()

    @property
    def n_samples_(self):
        """Number of samples that were kept."""
        check_is_fitted(self, "module_")
        return len(self.module_.samples)

    def _network(self):
        return Network(self.module_, self.classes_, self.n_features_in_)

    def _logits(self, X):
        check_is_fitted(self, "module_")
        X = validate_data(self, plain_array(X), dtype=np.float32, reset=False)
        network = self._network()
        with torch.no_grad():
            return network(network.rows(X)).cpu().numpy()


def _names(module):
    """Return the names of the parameters that are sampled."""
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def _weights(module):
    """Return a copy of the parameters that are sampled, as one vector."""
    return torch.nn.utils.parameters_to_vector(sampled_parameters(module)).detach().clone()


def _chain_type():
    """Return the sampler, or raise an ImportError where Pyro is missing."""
    try:
        from skrobust.estimators._hmc import Chain
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyro":
            raise
        raise ImportError(
            "BayesianClassifier needs Pyro. Install it by: pip install 'skrobust[bayes]'."
        ) from error
    return Chain


def _sampled(chains, warmup, n_draws):
    """Take proposals of chains in turn, until there are enough or the keyboard interrupts.

    Returns
    -------
    n_done : int
        Draws of each chain.
    samples : Tensor of shape (n_chains, n_draws, n_weights)
        Fewer draws after an interrupt; the places of the chains if there were none.
    energies : ndarray of shape (n_chains, n_draws)
    """
    weights = torch.stack([chain.weights for chain in chains])
    samples = weights.new_empty(len(chains), n_draws, weights.shape[1])
    energies = np.empty((len(chains), n_draws))
    n_done = 0
    try:
        for step in range(warmup + n_draws):
            for chain in chains:
                chain.sample()
            if step < warmup:
                continue
            for row, chain in enumerate(chains):
                samples[row, n_done] = chain.weights
                energies[row, n_done] = chain.value
            n_done += 1
    except KeyboardInterrupt:
        if n_done == 0:
            samples = torch.stack([chain.weights for chain in chains]).unsqueeze(1)
            return 0, samples, np.array([[chain.value] for chain in chains])
    if n_done < n_draws:  # not a part of what was laid out for all, which a pickle would hold
        samples = samples[:, :n_done].clone()
    return n_done, samples, energies[:, :n_done]


@as_network.register(BayesianClassifier)
def _read_bayesian(model, *, input_shape=None):
    check_is_fitted(model, "module_")
    return model._network()
