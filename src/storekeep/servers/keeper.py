"""The process that keeps a home's NATS server running as long as anybody uses it, and no longer.

Hides deaths: a server that died is started again on its port, and when the last user is gone, killed too, the
server is ended. It must outlive its client, so it uses the standard library only and imports nothing of
Storekeep.

The locks, each a file in the folder:
    users   shared by every process that uses the server; the keeper gets it alone when there is none
    watch   held by the one keeper, handed to it by who started it, so that there are never two
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

CONFIGURATION, PID = "nats.conf", "nats.pid"
PAUSE_SECONDS = 0.05
# Who dies so often, each time so soon, will not live: a port that is taken, a folder that cannot be written.
MOST_STARTS = 5
SOUND_SECONDS = 1.0
END_SECONDS = 30.0


def keep(folder: Path, program: str, mark: int) -> None:
    """Run the server until nobody uses it, then end it and give up the `watch` lock before `users`."""
    users = os.open(folder / "users", os.O_RDWR)
    end_left(folder)
    server, began, starts = start(folder, program), time.monotonic(), 1
    while not alone(users):
        if server.poll() is not None:
            starts = 1 if time.monotonic() - began > SOUND_SECONDS else starts + 1
            if starts > MOST_STARTS:
                os.close(mark)
                return
            server, began = start(folder, program), time.monotonic()
        time.sleep(PAUSE_SECONDS)
    server.terminate()
    try:
        server.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    os.close(mark)


def start(folder: Path, program: str) -> subprocess.Popen[bytes]:
    """Start the server; what it says goes into its log."""
    return subprocess.Popen([program, "-c", str(folder / CONFIGURATION)], cwd=folder)


def alone(users: int) -> bool:
    """Whether nobody uses the server; and then nobody may until the keeper is gone."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def end_left(folder: Path) -> None:
    """End a server whose keeper was killed: two of them would write into one store."""
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        pid = int((folder / PID).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if os.fsencode(folder / CONFIGURATION) in words:
            os.kill(pid, signal.SIGKILL)
            until = time.monotonic() + END_SECONDS
            while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
                time.sleep(PAUSE_SECONDS)


def main(folder: str, program: str, mark: str) -> None:
    """Leave the parent, so that it need not wait for us, and keep."""
    if os.fork():
        os._exit(0)
    keep(Path(folder), program, int(mark))


if __name__ == "__main__":
    main(*sys.argv[1:])
