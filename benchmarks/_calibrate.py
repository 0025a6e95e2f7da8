"""Print the table of skrobust/statistics/_calibrations.py: `python benchmarks/_calibrate.py`.

Each entry is the z that `sequential_rule` finds for a tolerance and a confidence, in full
precision. It takes several minutes, nearly all of them for the tolerances below 0.02.
"""

from skrobust.statistics._sequential import calibrated_z

TOLERANCES = (0.1, 0.05, 0.04, 0.03, 0.025, 0.02, 0.015, 0.01)
CONFIDENCES = (0.9, 0.95, 0.99)

if __name__ == "__main__":
    for tolerance in TOLERANCES:
        for confidence in CONFIDENCES:
            z = calibrated_z(tolerance, confidence)
            print(f"    ({tolerance}, {confidence}): {z!r},", flush=True)
