"""Connections that others open to this process: how many, how long, and what becomes of them; and
to whom our own ones to this machine lead."""
