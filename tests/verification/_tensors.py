"""What tests of verifiers share: the door for tensors, and a verifier that records."""

import numpy as np

from skrobust.verification import VerificationBuilder, Verifier


def decided(verifier, network, property, x, labels=None, **options):
    """Encode a network and a property, and decide; see `Verifier.encode` and `decide`."""
    encoding = verifier.encode(network, property, x.shape[1])
    return verifier.decide(encoding, x, labels, **options)


class Recorder(Verifier):
    """Decides what it is told to, and keeps what it was asked."""

    def __init__(self, verdict="unknown"):
        self.verdict = verdict

    def check(self):
        self.asked = []
        return self

    def decide(self, state, x, labels=None, *, timeout=None, generator=None):
        self.asked.append((len(x), timeout))
        found = VerificationBuilder(x)
        if self.verdict == "verified":
            found.prove(np.arange(len(x)))
        return found.result()
