"""A signal, which agents' tools may send to the App Server, opens no door beside it."""

import signal

from tests.servers import LettaServer, is_ready
from tests.waiting import eventually


async def test_a_signal_opens_no_debugger(app_server: LettaServer) -> None:
    """Node would listen on a port that knows no secret, and runs whatever is sent there."""
    process = app_server.server.process
    assert process is not None
    log = app_server.app_server.log
    for _ in range(3):
        process.send_signal(signal.SIGUSR1)
        await eventually(is_ready(app_server.http, app_server.app_server.health_url))
    assert process.poll() is None
    assert "Debugger listening" not in log.read_text(errors="replace")
    assert "--disable-sigusr1" in app_server.app_server.command.argv
