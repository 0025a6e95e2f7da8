"""
A sweep over a cluster
======================

The same evaluation on one processor and on a cluster of Dask's worker processes, to the same bits.
The cluster is started here; on a real one, ``Client("tcp://scheduler:8786")`` takes its place.

It needs ``pip install "skrobust[dask]"``.
"""

import joblib
import numpy as np
from dask.distributed import Client, LocalCluster
from sklearn.neural_network import MLPClassifier

from skrobust.attacks import PGD
from skrobust.datasets import load_digits
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSecurity

# %%
# Worker processes import this file, so what starts them stands below.


def main():
    X, y = load_digits(return_X_y=True)
    model = MLPClassifier(50, max_iter=400, random_state=0).fit(X[:1000], y[:1000])
    scorer = ConstraintSecurity(
        ClassificationRobustness(epsilon=0.05), PGD(20), chunk_size=50, random_state=0
    )

    # %%
    # One thread a worker, since the work is done by one thread each.

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        spread = scorer.evaluate(model, X[1000:], y[1000:])
    alone = scorer.evaluate(model, X[1000:], y[1000:])
    print(f"On the cluster: {spread}")
    print(f"Equal to the last bit: {np.array_equal(spread.margins, alone.margins)}")


if __name__ == "__main__":
    main()
