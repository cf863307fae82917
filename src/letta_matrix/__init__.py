"""letta-matrix gives every Letta agent a user, a room and a voice on Matrix."""

__version__ = "0.1.0"
