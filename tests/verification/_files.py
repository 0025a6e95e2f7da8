"""ONNX and VNNLIB files that tests of readers share."""

import itertools

import numpy as np

BOX = "(assert (>= X_0 0.2))\n(assert (<= X_0 0.4))\n(assert (>= X_1 -1))\n(assert (<= X_1 1e0))\n"


def declared(n_inputs=2, n_outputs=2):
    names = [f"X_{i}" for i in range(n_inputs)] + [f"Y_{j}" for j in range(n_outputs)]
    return "".join(f"(declare-const {name} Real)\n" for name in names)


def write_query(folder, body, n_inputs=2, n_outputs=2):
    """Write a file with declarations and a body; return its path."""
    path = folder / "query.vnnlib"
    path.write_text(declared(n_inputs, n_outputs) + body, encoding="utf-8")
    return path


def write_network(folder, layers, shape, name="network.onnx", last=None, seed=0):
    """Write a ReLU network as the competitions' files have it: Sub, Flatten, MatMul, Add.

    `layers` are pairs of arrays (W, b), or the sizes of random ones.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    if not isinstance(layers[0], tuple):
        rng = np.random.default_rng(seed)
        layers = [
            (1.5 * rng.normal(size=(a, b)) / np.sqrt(a), 0.3 * rng.normal(size=b))
            for a, b in itertools.pairwise(layers)
        ]
    tensors, nodes = [], []

    def constant(value, dtype=np.float32):
        tensors.append(numpy_helper.from_array(np.asarray(value, dtype), f"c{len(tensors)}"))
        return tensors[-1].name

    def add(kind, *inputs):
        nodes.append(helper.make_node(kind, list(inputs), [f"v{len(nodes)}"]))
        return nodes[-1].output[0]

    here = add("Flatten", add("Sub", "input", constant(np.zeros(shape))))
    for k, (W, b) in enumerate(layers):
        here = add("Add", add("MatMul", here, constant(W)), constant(b))
        here = here if k == len(layers) - 1 else add("Relu", here)
    here = here if last is None else add(last, here)
    kind = TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(*end) for end in
            (("input", kind, list(shape)), (here, kind, [1, len(layers[-1][1])]))]  # fmt: skip
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / name)
    return folder / name
