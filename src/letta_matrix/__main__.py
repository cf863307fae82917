"""`python -m letta_matrix`: the same program as `letta-matrix`."""

from letta_matrix.cli.main import main

if __name__ == "__main__":
    main()
