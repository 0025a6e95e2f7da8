"""Effective samples a second of `BayesianClassifier` against a bare torch loop of the same steps.

Perceptrons on digits and on Fashion-MNIST, one chain, one thread. The bare loop has the same
potential (prior normal, likelihood of all images), takes as many leapfrog steps of the same size
from random weights, and keeps the samples; it does nothing else. Ours is the whole of `fit`:
checks, samples, diagnostics. Both make as many proposals, so the ratio of the times is that of
proposals a second. On digits the chains are long enough to count effective samples, of the log
density; on Fashion-MNIST there are a few proposals only. Pyro's own kernel on the same potential
stands beside it. The last table is of a posterior of random weights: seconds and memory of
predictions, and of the gradients of attacks.
"""

import argparse
import itertools
import resource
import statistics
import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from _timing import compare, header
from pyro.infer.mcmc import HMC
from pyro.ops.stats import effective_sample_size
from sklearn.exceptions import ConvergenceWarning
from torch.nn.functional import cross_entropy, linear

from skrobust.datasets import fetch_fashion_mnist, load_digits
from skrobust.estimators import BayesianClassifier
from skrobust.estimators._average import PosteriorAverage


@dataclass
class Case:
    """A network, its data, and how it is sampled."""

    X: torch.Tensor
    y: torch.Tensor
    hidden: list
    step_size: float
    num_steps: int
    warmup: int
    n_samples: int

    @property
    def sizes(self):
        return [self.X.shape[1], *self.hidden, 10]


def main(options):
    warnings.simplefilter("ignore", ConvergenceWarning)  # one chain, and few samples
    X, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
    digits = Case(X.float()[:200], y[:200], [10], 0.03, 20, options.samples // 2, options.samples)
    X, y = fetch_fashion_mnist(subset="train", return_X_y=True)
    X, y = torch.tensor(X[: options.images]), torch.tensor(y[: options.images])
    header()
    effective = compare_chains(digits, options)
    for hidden in ([50], [256], [128, 128, 128]):
        compare_chains(Case(X, y, hidden, 1e-3, 10, 0, options.proposals), options)
    counts = " | ".join(f"{count:.1f}" for count in effective)
    print("\n| effective samples of the log density, digits | ours | bare loop |\n|---|---|---|")
    print(f"| mean of the runs | {counts} |")
    predictions(options)


def compare_chains(case, options):
    """Print times; return the mean numbers of effective samples of our chains and of bare ones."""
    name = "-".join(map(str, case.sizes))
    seeds = itertools.count()
    densities = [], []

    def ours():
        model = BayesianClassifier(
            hidden_layer_sizes=case.hidden,
            step_size=case.step_size,
            num_steps=case.num_steps,
            n_samples=case.n_samples,
            warmup=case.warmup,
            n_chains=1,
            random_state=next(seeds),
        ).fit(case.X.numpy(), case.y.numpy())
        densities[0].append(model.log_density_[0])

    def bare():
        energies = bare_loop(case, first_weights(case.sizes, next(seeds)))[1]
        densities[1].append([-energy for energy in energies])

    compare(f"{name}, bare loop", ours, bare, repeats=options.repeats)
    effective = [mean_effective(side) for side in densities]
    compare(f"{name}, kernel of Pyro", ours, lambda: pyro_loop(case), repeats=options.repeats)
    return effective


def mean_effective(chains):
    chains = torch.tensor(np.array(chains))
    return statistics.mean(float(effective_sample_size(chain[None])) for chain in chains)


def first_weights(sizes, seed=0):
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    return [p.detach().clone() for layer in layers for p in layer.parameters()]


def potential(weights, X, y):
    """Minus the log of prior times likelihood, of a list of matrices and biases."""
    hidden = X
    for i in range(0, len(weights), 2):
        hidden = linear(hidden if i == 0 else hidden.relu(), weights[i], weights[i + 1])
    return cross_entropy(hidden, y, reduction="sum") + 0.5 * sum(w.square().sum() for w in weights)


def gradients(weights, X, y):
    for weight in weights:
        weight.requires_grad_()
    value = potential(weights, X, y)
    found = torch.autograd.grad(value, weights)
    return float(value.detach()), [w.detach() for w in weights], found


def bare_loop(case, weights):
    """Sample; return the samples, and the energy at each."""
    step_size = case.step_size
    value, weights, pull = gradients(weights, case.X, case.y)
    samples, energies = [], []
    for _ in range(case.warmup + case.n_samples):
        momenta = [torch.randn_like(w) for w in weights]
        before = value + kinetic(momenta)
        proposal, new_pull = weights, pull
        for _ in range(case.num_steps):
            momenta = [r - step_size / 2 * g for r, g in zip(momenta, new_pull, strict=True)]
            proposal = [w + step_size * r for w, r in zip(proposal, momenta, strict=True)]
            new_value, proposal, new_pull = gradients(proposal, case.X, case.y)
            momenta = [r - step_size / 2 * g for r, g in zip(momenta, new_pull, strict=True)]
        if torch.rand(()) < torch.exp(torch.tensor(before - new_value - kinetic(momenta))):
            value, weights, pull = new_value, proposal, new_pull
        samples.append(torch.cat([w.reshape(-1) for w in weights]))
        energies.append(value)
    return torch.stack(samples[case.warmup :]), energies[case.warmup :]


def kinetic(momenta):
    return 0.5 * sum(float(r.square().sum()) for r in momenta)


def pyro_loop(case):
    kernel = HMC(
        potential_fn=lambda z: potential([z[name] for name in sorted(z)], case.X, case.y),
        step_size=case.step_size,
        num_steps=case.num_steps,
        adapt_step_size=False,
        adapt_mass_matrix=False,
    )
    weights = first_weights(case.sizes)
    kernel.initial_params = {f"{i:02d}": w for i, w in enumerate(weights)}
    kernel.setup(0)
    return [kernel.sample(None) for _ in range(case.warmup + case.n_samples)]


def predictions(options):
    sizes = [784, *options.layers, 10]
    layers = []
    for before, after in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    module = torch.nn.Sequential(*layers[:-1])
    n_weights = sum(p.numel() for p in module.parameters())
    # In place, so that the peak of the memory before is what the samples take.
    samples = torch.empty(options.posterior, n_weights).normal_(0, 0.03)
    names = [name for name, _ in module.named_parameters()]
    x = torch.rand(options.rows, 784)
    average = PosteriorAverage(module, names, samples, x[:2])
    print(f"\n| {options.posterior} samples of {n_weights} weights | s | memory beyond, MiB |")
    print(f"|---|---|---|\n| the samples themselves | | {samples.nbytes / 2**20:.0f} |")

    def gradient():
        inputs = x.clone().requires_grad_()
        return torch.autograd.grad(average(inputs).logsumexp(dim=1).sum(), inputs)

    def probabilities():
        with torch.no_grad():
            return average(x)

    for name, function in (("predictions", probabilities), ("gradients", gradient)):
        before, start = peak(), time.process_time()
        function()
        seconds = time.process_time() - start
        print(f"| {name} of {len(x)} rows | {seconds:.1f} | {peak() - before:.0f} |", flush=True)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=200, help="of a chain on digits")
    parser.add_argument("--proposals", type=int, default=20, help="of a chain on Fashion-MNIST")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--posterior", type=int, default=600, help="samples to average")
    parser.add_argument("--layers", type=int, nargs="+", default=[512, 512, 512])
    parser.add_argument("--rows", type=int, default=100)
    main(parser.parse_args())
