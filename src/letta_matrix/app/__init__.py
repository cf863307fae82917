"""The bridge as one running program: its parts put together."""
