"""Adapter for the Letta API: Letta Cloud, and V1 servers (`letta` up to 0.16)."""

from letta_matrix.runtimes.letta_api.adapter import LettaApi

__all__ = ["LettaApi"]
