"""Hours in which nobody on another network is written to. Pure."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from letta_matrix.config.portals import QuietHours


def until_open(quiet: QuietHours | None, now: float) -> float:
    """Seconds from a Unix time to the end of quiet hours; 0 outside of them, and where they begin
    and end at once."""
    if quiet is None or quiet.start == quiet.end:
        return 0.0
    zone = ZoneInfo(quiet.zone)
    here = datetime.fromtimestamp(now, zone)
    for day in (-1, 0):
        date = here.date() + timedelta(days=day)
        start = datetime.combine(date, quiet.start, zone)
        over_midnight = quiet.end < quiet.start
        end = datetime.combine(date + timedelta(days=over_midnight), quiet.end, zone)
        # As points in time: clocks may be changed in between.
        if start.timestamp() <= now < end.timestamp():
            return end.timestamp() - now
    return 0.0
