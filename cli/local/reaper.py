"""The last one out: ends what `normbank up` started when `up` cannot.

`up` starts this in a session of its own and holds the other end of its
standard input. Each line names something: `group PID`, `ended PID`,
`server PID SIGNAL`. When the input ends without `done`, even because of a
`kill -9`, what was named and has not ended is ended here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress


def reap(lines: Iterable[str]) -> None:
    """Remember what is named and end it at the end of the input."""
    groups: set[int] = set()
    servers: dict[int, int] = {}
    for line in lines:
        match line.split():
            case ["group", pid]:
                groups.add(int(pid))
            case ["ended", pid]:
                groups.discard(int(pid))
            case ["server", pid, number]:
                servers[int(pid)] = int(number)
            case ["done"]:
                return
    for leader in groups:
        with suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
    for server, how in servers.items():
        with suppress(ProcessLookupError):
            os.kill(server, how)


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    reap(sys.stdin)
