"""The bridge as one running program: its parts put together."""

from letta_matrix.common.alone import load_alone

# Tracebacks in colours, and loggers of other event loops: 7 MB and a tenth of a start.
load_alone("structlog", "rich", "colorama", "twisted", "greenlet")
# The runtime of C++, for lists that cannot be changed: 1 MB.
load_alone("frozenlist", "frozenlist._frozenlist")
# Metrics that nobody reads: 1 MB, until somebody asks for ours.
load_alone("mautrix.util.opt_prometheus", "prometheus_client")
