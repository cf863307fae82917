"""Starts a keeper: `python -m letta_matrix.runtimes.keeper --socket PATH`.

With `--detach` the keeper runs on as a process of its own, a child of nobody here.
"""

import os
import sys

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if "--detach" in arguments:
        arguments.remove("--detach")
        if os.fork():
            os._exit(0)
        os.setsid()

    from letta_matrix.runtimes.keeper.process import main

    sys.exit(main(arguments))
