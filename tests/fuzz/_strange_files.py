"""Mutated ONNX and VNNLIB files, and folders of evidence, read in a process of its own.

``python -m tests.fuzz._strange_files KIND START COUNT FOLDER`` reads COUNT mutations, by seeds
from START on, and prints what came of them as JSON.
"""

import itertools
import json
import random
import re
import resource
import shutil
import sys
import warnings
import zipfile
from fractions import Fraction
from operator import eq, ge, gt, le, lt
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.neural_network import MLPClassifier

from skrobust.evidence import check
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks import load_onnx
from skrobust.properties import ClassificationRobustness
from skrobust.verification import Exact, read_query
from tests.verification._files import BOX, declared, write_network

QUERIES = [
    BOX + "(assert (or (and (<= Y_0 Y_1) (>= Y_0 -0.5)) (and (>= (+ Y_0 (* 2 Y_1)) 1.5))))\n",
    """(assert (or
  (and (>= X_0 0) (<= X_0 1) (>= X_1 0.25) (<= X_1 1) (<= Y_0 0))
  (and (>= X_0 2) (<= X_0 3) (>= X_1 0.5) (<= X_1 1e0) (or (>= Y_0 0.75) (>= Y_1 5)))))
(assert (<= Y_1 9))
""",
    "(set-logic QF_LRA)\n"
    + BOX
    + "(assert (not (or (< Y_0 -1.25e0) (= Y_1 2))))(assert (> 0.375 X_0))\n"
    + "(assert (<= -1 Y_0 Y_1))(check-sat)\n",
]
HUGE = ["1e999", "-1e308", "9" * 400, "1e-400", "18446744073709551616", "-", "e5", "X_99999999"]
VARINTS = [b"\xff" * 9 + b"\x01", b"\x80" * 9 + b"\x01", b"\xff\xff\xff\xff\x07", b"\x00"]


def mutated_bytes(data, rng):
    """Flip, cut, repeat or move bytes."""
    data = bytearray(data)
    kind = rng.randrange(5)
    if kind == 0:
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[rng.randrange(len(data)) :]
    elif kind == 2:
        start = rng.randrange(len(data))
        part = data[start : start + rng.randint(1, 200)]
        data[start:start] = part * rng.choice([1, 2, 300])
    elif kind == 3:
        start = rng.randrange(len(data))
        data[start : start + rng.randint(1, 4)] = rng.choice(VARINTS)
    else:
        start = rng.randrange(len(data))
        del data[start : start + rng.randint(1, 40)]
    return bytes(data)


def mutated_text(text, rng):
    """Change words, numbers and brackets."""
    kind = rng.randrange(6)
    words = re.split(r"(\s+|[()])", text)
    place = rng.randrange(len(words))
    if kind == 0:
        return mutated_bytes(text.encode(), rng)
    if kind == 1:
        numbers = [i for i, word in enumerate(words) if re.fullmatch(r"-?[\d.]+(e\d)?", word)]
        words[rng.choice(numbers)] = rng.choice([*HUGE, "0", "-1", "0.5", "7"])
    elif kind == 2:
        words[place] = "(" * rng.choice([1, 5000]) + words[place]
    elif kind == 3:
        words[place] = words[place] * rng.choice([2, 2000])
    elif kind == 4:
        other = rng.randrange(len(words))
        words[place], words[other] = words[other], words[place]
    else:
        depth = rng.choice([3, 40, 3000])
        words.append("(assert " + "(and " * depth + "(<= Y_0 1)" + ")" * depth + ")\n")
    return "".join(words).encode()


def mutated_model(data, rng):
    """Change what a model claims."""
    if rng.random() < 0.5:
        return mutated_bytes(data, rng)
    model = onnx.load_from_string(data)
    graph, kind = model.graph, rng.randrange(10)
    tensor, node = rng.choice(graph.initializer), rng.choice(graph.node)
    size = rng.choice([0, -1, 1, 2**20, 2**31, 2**40, 2**62])
    if kind == 0:
        tensor.dims[rng.randrange(len(tensor.dims))] = size
    elif kind == 1:
        axes = graph.input[0].type.tensor_type.shape.dim
        axes[rng.randrange(len(axes))].dim_value = size
    elif kind == 2:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=rng.choice(
            ["../secret", "/etc/passwd", "missing", "", "network.onnx"]))  # fmt: skip
        tensor.external_data.add(key="length", value=str(size))
    elif kind == 3:
        other = rng.choice(["Softmax", "Identity", "ConstantOfShape", "Conv", "Reshape", "Tile",
                            "Pad", "Gemm", "Concat", "Range", "Expand", "Loop"])  # fmt: skip
        node.op_type = other
    elif kind == 4:
        node.input[0] = rng.choice([other.output[0] for other in graph.node])
    elif kind == 5:
        tensor.data_type = rng.randrange(0, 30)
    elif kind == 6:
        shape = onnx.numpy_helper.from_array(np.array([size, 2**10]), "grown_shape")
        graph.initializer.append(shape)
        graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", ["grown_shape"], ["grown"]))
        graph.node[-1].input[1] = "grown"
    elif kind in (7, 8):
        raw = bytearray(tensor.raw_data)
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        tensor.raw_data = bytes(raw)
    else:
        node.input.extend(itertools.chain.from_iterable([list(node.input)] * 50))
    return model.SerializeToString()


def mutated_folder(source, target, rng):
    """Copy a folder of evidence with one of its files changed, and return the name of that."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    path = rng.choice(sorted(target.iterdir()))
    if path.suffix != ".npz" or rng.random() < 0.5:
        path.write_bytes(mutated_bytes(path.read_bytes(), rng))
        return path.name
    # What a header of an array claims, in a sound archive.
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            arrays[name] = archive.read(name)
    name = rng.choice(sorted(arrays))
    claims = [b"(99999999999,)", b"(-1,)", b"(1048576, 1048576)", b"(2,)", b"('a',)"]
    arrays[name] = re.sub(rb"\(\d*,?[ \d,]*\)", rng.choice(claims), arrays[name], count=1)
    if rng.random() < 0.3:
        arrays[name] = mutated_bytes(arrays[name], rng)
    with zipfile.ZipFile(
        path, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    ) as zipped:
        for key, data in arrays.items():
            zipped.writestr(key, data)
    return path.name


# -- right readings --


def parsed(text):
    """Read a file as nested lists, in another way than the library does."""
    stack = [[]]
    for word in re.findall(r"[()]|[^\s();]+", re.sub(r";.*", "", text)):
        if word == "(":
            stack.append([])
        elif word == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(word)
    return stack[0]


def evaluated(term, names):
    if isinstance(term, str):
        return names[term] if term in names else Fraction(float(term))
    sign, *parts = term
    values = [evaluated(part, names) for part in parts]
    if sign in ("and", "or"):
        return (all if sign == "and" else any)(values)
    if sign == "not":
        return not values[0]
    signs = {"<=": le, ">=": ge, "<": lt, ">": gt, "=": eq}
    if sign in signs:
        return all(signs[sign](*pair) for pair in itertools.pairwise(values))
    if sign == "*":
        total = Fraction(1)
        for value in values:
            total *= value
        return total
    if sign == "-":
        return -values[0] if len(values) == 1 else values[0] - sum(values[1:])
    return sum(values)


def is_right_query(path, answer):
    """Whether the property says what the file does, at random points."""
    _, properties, x = answer
    properties = properties if isinstance(properties, list) else [properties]
    asserts = [command[1] for command in parsed(path.read_text()) if command[0] == "assert"]
    rng = np.random.default_rng(0)
    for _ in range(20):
        place = rng.integers(len(x))
        low, high = properties[place].bounds
        # Numbers of few bits, so that float64 is exact.
        # Inside: boxes are closed, also where the file says that an end does not belong to them.
        point = np.clip(low + rng.integers(1, 8, size=len(low)) / 8 * (high - low), low, high)
        y = rng.integers(-16, 17, size=2) / 4
        names = {f"X_{i}": Fraction(value) for i, value in enumerate(point.tolist())}
        names |= {f"Y_{i}": Fraction(value) for i, value in enumerate(y.tolist())}
        stated = all(evaluated(term, names) for term in asserts)
        read = any(
            bool((property.bounds[0] <= point).all() and (point <= property.bounds[1]).all())
            and not property.holds(y[None])[0]
            for property in properties
        )
        if stated != read:
            return False
    return True


def is_right_model(path, module):
    """Whether the module computes what onnxruntime does, where that reads the file."""
    import onnxruntime

    x = np.random.default_rng(0).uniform(-1, 1, size=(1, *module.input_shape)).astype(np.float32)
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        (source,) = session.get_inputs()
        (theirs,) = session.run(None, {source.name: x})
    except Exception:  # it has errors of many kinds
        return True
    if module.dropped is not None:
        return True
    with torch.no_grad():
        ours = module(torch.as_tensor(x)).numpy()
    scale = np.abs(theirs[np.isfinite(theirs)]).max(initial=1.0)
    return np.allclose(ours, theirs.reshape(ours.shape), 1e-3, 1e-4 * scale, equal_nan=True)


def peak_memory():
    """Return the most memory that this process has held, in bytes.

    What the operating system reports of a child holds its parent's memory at the start, too, so
    that a large test process would count; Linux tells of the program alone.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# -- files of each kind --


def read_onnx(folder):
    """Return what reads a mutation by its seed: whether it is right, or a documented error."""
    data, path = write_network(folder, [2, 4, 2], (1, 1, 2)).read_bytes(), folder / "strange.onnx"

    def read(rng):
        path.write_bytes(mutated_model(data, rng))
        return is_right_model(path, load_onnx(path))

    return read, path.name


def read_vnnlib(folder):
    network, path = write_network(folder, [2, 4, 2], (1, 1, 2)), folder / "strange.vnnlib"

    def read(rng):
        path.write_bytes(mutated_text(declared() + rng.choice(QUERIES), rng))
        return is_right_query(path, read_query(network, path))

    return read, path.name


def read_evidence(folder):
    """As `read_onnx`; what the checker rejects raises a ValueError of what it says."""
    rng = np.random.default_rng(0)
    X, y = rng.random((6, 3)), np.arange(6) % 2
    model = MLPClassifier(4, solver="lbfgs", max_iter=20, random_state=0).fit(X, y)
    sound, strange = folder / "sound", folder / "strange"
    property = ClassificationRobustness(0.02, reference="prediction")
    Exact().verify(model, X, property=property, evidence=sound)
    assert check(sound).is_accepted

    def read(rng):
        name = mutated_folder(sound, strange, rng)
        result = check(strange)
        rejected = result.files[~result.accepted]
        if len(rejected):
            # The manifest speaks for the network; and for no other file.
            assert set(rejected) <= {name, "manifest.json"} or name == "manifest.json", rejected
            raise ValueError(f"strange {result.messages}")
        return len(result) == len(X) or name == "manifest.json"

    return read, "strange"


KINDS = {"onnx": read_onnx, "vnnlib": read_vnnlib, "evidence": read_evidence}


def main(kind, start, count, folder):
    warnings.simplefilter("ignore")
    read, name = KINDS[kind](Path(folder))
    outcomes, faults = {"read": 0, "refused": 0}, []
    for seed in range(start, start + count):
        try:
            is_right = read(random.Random(seed))
        except (ValueError, UnsupportedModelError, UnsupportedPropertyError) as error:
            outcomes["refused"] += 1
            if name not in str(error):
                faults.append(f"{seed}: the file is not named: {error}")
        except BaseException as error:
            faults.append(f"{seed}: {type(error).__name__}: {error}")
        else:
            outcomes["read"] += 1
            if not is_right:
                faults.append(f"{seed}: read wrongly")
    print(json.dumps({"peak": peak_memory(), "faults": faults, **outcomes}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
