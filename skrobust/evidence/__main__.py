"""The command line: ``python -m skrobust.evidence check FOLDER [--exact]``."""

import sys

from skrobust.evidence._checker import main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] != ["check"]:
        print("usage: python -m skrobust.evidence check FOLDER [--exact]", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(arguments[1:]))
