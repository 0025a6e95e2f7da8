"""Effective samples a second of `BayesianClassifier` against a bare torch loop of the same steps.

Fashion-MNIST, perceptrons, one chain, one thread. The bare loop has the same potential (prior
normal, likelihood of all images), takes as many leapfrog steps of the same size from the same
weights, and keeps the samples; it does nothing else. Ours is the whole of `fit`: checks, samples,
diagnostics. Both make as many proposals, so the ratio of the times is that of proposals a second;
the number of effective samples of the log density is printed for each, over several chains.
Pyro's own kernel on the same potential stands beside it. The last table is of a posterior of
random weights: seconds and memory of predictions, and of the gradients of attacks.
"""

import argparse
import resource
import time
import warnings

import torch
from _timing import compare, header
from pyro.infer.mcmc import HMC
from pyro.ops.stats import effective_sample_size
from sklearn.exceptions import ConvergenceWarning
from torch.nn.functional import cross_entropy, linear

from skrobust.datasets import fetch_fashion_mnist
from skrobust.estimators import BayesianClassifier
from skrobust.estimators._average import PosteriorAverage

STEP_SIZE, N_STEPS = 1e-3, 10


def main(options):
    warnings.simplefilter("ignore", ConvergenceWarning)  # one chain, and few samples
    X, y = fetch_fashion_mnist(subset="train", return_X_y=True)
    X, y = X[: options.images], y[: options.images]
    header()
    rows = [
        row
        for sizes in ([50], [256], [128, 128, 128])
        for row in compare_chains(sizes, X, y, options)
    ]
    print("\n| effective samples of the log density | ours | bare loop |\n|---|---|---|")
    for name, ours, theirs in rows:
        print(f"| {name} | {ours:.1f} | {theirs:.1f} |")
    predictions(options)


def compare_chains(sizes, X, y, options):
    """Print the times of one network; yield its effective samples, for ours and the bare loop."""
    name = "-".join(map(str, [784, *sizes, 10]))
    model = BayesianClassifier(
        hidden_layer_sizes=sizes,
        step_size=STEP_SIZE,
        num_steps=N_STEPS,
        n_samples=options.samples,
        warmup=0,
        n_chains=1,
        random_state=0,
    )
    X, y = torch.tensor(X), torch.tensor(y)
    weights = first_weights([784, *sizes, 10])
    densities = {"ours": [], "bare": []}

    def ours():
        densities["ours"].append(model.fit(X.numpy(), y.numpy()).log_density_[0])

    def bare():
        energies = bare_loop([w.clone() for w in weights], X, y, options.samples)[1]
        densities["bare"].append([-energy for energy in energies])

    compare(f"{name}, bare loop", ours, bare, repeats=options.repeats)
    compare(
        f"{name}, kernel of Pyro",
        ours,
        lambda: pyro_loop(weights, X, y, options.samples),
        repeats=options.repeats,
    )
    yield (
        name,
        *(
            float(effective_sample_size(torch.tensor(values[0]).double()[None]))
            for values in densities.values()
        ),
    )


def first_weights(sizes):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(*pair) for pair in zip(sizes[:-1], sizes[1:], strict=True)]
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


def bare_loop(weights, X, y, n_samples):
    value, weights, pull = gradients(weights, X, y)
    samples, energies = [], []
    for _ in range(n_samples):
        momenta = [torch.randn_like(w) for w in weights]
        before = value + kinetic(momenta)
        proposal, new_pull = weights, pull
        for _ in range(N_STEPS):
            momenta = [r - STEP_SIZE / 2 * g for r, g in zip(momenta, new_pull, strict=True)]
            proposal = [w + STEP_SIZE * r for w, r in zip(proposal, momenta, strict=True)]
            new_value, proposal, new_pull = gradients(proposal, X, y)
            momenta = [r - STEP_SIZE / 2 * g for r, g in zip(momenta, new_pull, strict=True)]
        if torch.rand(()) < torch.exp(torch.tensor(before - new_value - kinetic(momenta))):
            value, weights, pull = new_value, proposal, new_pull
        samples.append(torch.cat([w.reshape(-1) for w in weights]))
        energies.append(value)
    return torch.stack(samples), energies


def kinetic(momenta):
    return 0.5 * sum(float(r.square().sum()) for r in momenta)


def pyro_loop(weights, X, y, n_samples):
    kernel = HMC(
        potential_fn=lambda z: potential([z[name] for name in sorted(z)], X, y),
        step_size=STEP_SIZE,
        num_steps=N_STEPS,
        adapt_step_size=False,
        adapt_mass_matrix=False,
    )
    kernel.initial_params = {f"{i:02d}": w.clone() for i, w in enumerate(weights)}
    kernel.setup(0)
    return [kernel.sample(None) for _ in range(n_samples)]


def predictions(options):
    sizes = [784, *options.layers, 10]
    layers = []
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    module = torch.nn.Sequential(*layers[:-1])
    n_weights = sum(p.numel() for p in module.parameters())
    samples = 0.03 * torch.randn(options.posterior, n_weights)
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
    parser.add_argument("--samples", type=int, default=20, help="of each chain")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--posterior", type=int, default=600, help="samples to average")
    parser.add_argument("--layers", type=int, nargs="+", default=[512, 512, 512])
    parser.add_argument("--rows", type=int, default=100)
    main(parser.parse_args())
