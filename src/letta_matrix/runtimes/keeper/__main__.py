"""Starts a keeper: `python -m letta_matrix.runtimes.keeper --socket PATH`."""

import sys

from letta_matrix.runtimes.keeper.process import main

if __name__ == "__main__":
    sys.exit(main())
