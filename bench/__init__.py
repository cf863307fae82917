"""Measures letta-matrix against its floor and against the original way: `python -m bench`."""
