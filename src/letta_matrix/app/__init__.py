"""The bridge as one running program: its parts put together."""

from letta_matrix.common.alone import load_alone

# Tracebacks in colours, and loggers of another event loop: 6 MB and a tenth of a start.
load_alone("structlog", "rich", "twisted")
