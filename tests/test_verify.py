"""The command line: answers, witnesses and exit statuses."""

import re
import subprocess
import sys

import numpy as np
import pytest

from skrobust.verify import main
from tests.verification._files import BOX, write_network, write_query

pytest.importorskip("onnx")


def asked(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err


def values(lines):
    """Read a witness in the form of the competitions."""
    text = "".join(lines)
    pairs = re.findall(r"\(([XY])_(\d+) ([^\s()]+)\)", text)
    assert text == "(" + " ".join(f"({k}_{i} {v})" for k, i, v in pairs) + ")"
    return tuple(np.array([float(v) for k, _, v in pairs if k == kind]) for kind in "XY")


@pytest.fixture
def acas(tmp_path):
    """Five inputs, five outputs, as the networks of ACAS Xu."""
    return write_network(tmp_path, [5, 12, 12, 5], (1, 1, 1, 5))


ACAS_BOXES = """(assert (or
  (and (>= X_0 -0.1) (<= X_0 0.1) (>= X_1 -0.1) (<= X_1 0.1) (<= X_2 0.0) (>= X_2 0.0)
       (>= X_3 0.3) (<= X_3 0.500000001) (>= X_4 -0.1) (<= X_4 0.1))
  (and (>= X_0 0.6) (<= X_0 0.6798577687) (>= X_1 -0.5) (<= X_1 0.5) (<= X_2 0.5) (>= X_2 0.45)
       (>= X_3 0.1) (<= X_3 0.1) (>= X_4 -0.5) (<= X_4 -0.45))))
"""


def test_boxes_of_inputs_and_ors_of_outputs(acas, tmp_path, capsys):
    import onnxruntime

    limit = "(assert (or (and (<= Y_0 Y_1) (>= Y_2 {0})) (and (>= Y_3 {0}) (>= Y_4 {0}))))"
    query = write_query(tmp_path, ACAS_BOXES + limit.format(40.0), 5, 5)
    assert asked(capsys, acas, query) == (0, ["unsat"], "")
    query = write_query(tmp_path, ACAS_BOXES + limit.format(-40.0), 5, 5)
    status, (answer, *witness), _ = asked(capsys, acas, query, "--timeout", 60, "--seed", 1)
    assert (status, answer) == (0, "sat")
    x, y = values(witness)
    first, second = ([-0.1, -0.1, 0, 0.3, -0.1], [0.1, 0.1, 0, 0.500000001, 0.1]), (
        [0.6, -0.5, 0.45, 0.1, -0.5], [0.6798577687, 0.5, 0.5, 0.1, -0.45])  # fmt: skip
    assert any((low <= x).all() and (x <= high).all() for low, high in (first, second))
    session = onnxruntime.InferenceSession(str(acas), providers=["CPUExecutionProvider"])
    (replayed,) = session.run(None, {"input": x.astype(np.float32).reshape(1, 1, 1, 5)})
    np.testing.assert_allclose(replayed[0], y, rtol=1e-5, atol=1e-6)
    assert y[0] <= y[1] or (y[3] >= -40 and y[4] >= -40)


def test_images(tmp_path, capsys):
    """As mnist_fc: one box, and "or" of single comparisons with the label's output."""
    network = write_network(tmp_path, [36, 20, 20, 4], (1, 36, 1))
    x = np.random.default_rng(0).uniform(size=36)
    label = 2
    others = "(assert (or " + " ".join(f"(and (>= Y_{j} Y_{label}))" for j in (0, 1, 3)) + "))"

    def query(epsilon, offset=0.0):
        box = "".join(
            f"(assert (<= X_{i} {v + epsilon:.8f}))\n(assert (>= X_{i} {v - epsilon:.8f}))\n"
            for i, v in enumerate(x)
        )
        return write_query(tmp_path, box + others, 36, 4)

    answers = {asked(capsys, network, query(e), "--timeout", 60)[1][0] for e in (1e-4, 0.9)}
    assert answers <= {"sat", "unsat"} and "sat" in answers


def test_an_answer_needs_the_time_for_it(acas, tmp_path, capsys):
    query = write_query(tmp_path, ACAS_BOXES + "(assert (>= Y_0 40))", 5, 5)
    status, lines, _ = asked(capsys, acas, query, "--timeout", 1e-9)
    assert (status, lines) == (1, ["timeout"])


@pytest.mark.parametrize("timeout", ["0", "-1", "nan"])
def test_a_limit_of_no_time_is_refused(acas, tmp_path, capsys, timeout):
    query = write_query(tmp_path, ACAS_BOXES, 5, 5)
    status, lines, err = asked(capsys, acas, query, f"--timeout={timeout}")
    assert (status, lines) == (2, []) and f"Got timeout={float(timeout)}" in err


def test_bad_files_are_named(acas, tmp_path, capsys):
    for body, fault in (
        (BOX + "(assert (<= Y_0 Z_1))", "error: Got 'Z_1' in .*query.vnnlib, line 9"),
        (BOX, "which declares 2 inputs"),
    ):
        status, lines, err = asked(capsys, acas, write_query(tmp_path, body))
        assert (status, lines) == (2, []) and re.search(fault, err)
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    status, lines, err = asked(capsys, tmp_path / "bad.onnx", write_query(tmp_path, BOX))
    assert (status, lines) == (2, []) and "bad.onnx" in err


def test_evidence_is_handed_on_where_it_is_known(acas, tmp_path, capsys, monkeypatch):
    from skrobust.verification import Cascade

    query = write_query(tmp_path, ACAS_BOXES + "(assert (>= Y_0 40))", 5, 5)
    folders, verify = [], Cascade.verify

    def with_evidence(self, *args, evidence=None, **options):
        folders.append(evidence)
        return verify(self, *args, **options)

    def without(self, estimator, X, y=None, *, property, timeout=None, random_state=None):
        raise AssertionError("not asked")

    monkeypatch.setattr(Cascade, "verify", with_evidence)
    assert asked(capsys, acas, query, "--evidence", tmp_path / "out")[1] == ["unsat"]
    assert folders == [f"{tmp_path}/out/box_0", f"{tmp_path}/out/box_1"]
    monkeypatch.setattr(Cascade, "verify", without)
    status, _, err = asked(capsys, acas, query, "--evidence", tmp_path / "out")
    assert status == 2 and "this version writes no evidence" in err


def test_it_is_a_program(acas, tmp_path):
    query = write_query(tmp_path, ACAS_BOXES + "(assert (>= Y_0 40))", 5, 5)
    command = [sys.executable, "-m", "skrobust.verify", str(acas), str(query)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "unsat\n")


def test_help_says_what_the_answers_mean(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "unsat" in text and "--timeout" in text and "status 0" in text
