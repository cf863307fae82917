"""Connections that others open to this process: how many, how long, and what becomes of them."""
