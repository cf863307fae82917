"""Adapter for the Letta App Server, `letta server` of Letta Code."""

from letta_matrix.runtimes.app_server.adapter import AppServer

__all__ = ["AppServer"]
