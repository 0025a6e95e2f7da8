"""The door for tensors and networks, as tests of verifiers use it."""


def decided(verifier, network, property, x, labels=None, **options):
    """Encode a network and a property, and decide; see `Verifier.encode` and `decide`."""
    encoding = verifier.encode(network, property, x.shape[1])
    return verifier.decide(encoding, x, labels, **options)
