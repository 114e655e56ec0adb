"""A home's own NATS server with JetStream: started with its first user, shared, ended after the last.

Hides ports, the token and the configuration. The server comes from a wheel, listens on the loopback only,
lets in who can read the home, and writes what it acknowledges to the disk before it does.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from storekeep.config import Settings
from storekeep.errors import Refused, Transient
from storekeep.servers import home, keeper, postmaster

PROGRAM = "nats-server"
URL, LOG = "url", "nats.log"
READY_SECONDS = 30.0
LEAVE_SECONDS = 5.0
CONFIGURATION = """\
# Written by Storekeep at each start of the server.
server_name: storekeep
listen: "127.0.0.1:{port}"
authorization {{ token: "{token}" }}
# An event holds 100,000 facts at most, which take a few MB.
max_payload: 8MB
pid_file: {pid}
log_file: {log}
logfile_size_limit: 8MB
jetstream {{
  store_dir: {store}
  # Without it a power cut loses what was acknowledged in the last two minutes.
  sync_interval: always
}}
"""


@contextmanager
def nats(settings: Settings) -> Iterator[str]:
    """Use the home's NATS server; its URL, which holds the token.

    Any number of processes may use it at once. It runs as long as one does, is started again when it dies,
    and ends with the last, also when that is killed. Raises `Refused` when there is no server to start and
    `Transient` when it does not come up.
    """
    place, process = home.real_home(settings), os.getpid()
    with home.speaking(place):
        home.prepare(settings)
        folder = place / "nats"
        if home.make_folder(folder, 0o700):
            home.give(folder)
        users = postmaster.place(folder / postmaster.USERS)
    try:
        with home.speaking(place), home.start_lock(folder):
            home.join(folder, users)
            if not postmaster.held(folder / postmaster.WATCH):
                _begin(folder)
            url = (folder / URL).read_text().strip()
        _await_ready(folder, url)
        yield url
    finally:
        if os.getpid() == process:
            _leave(folder, users)
        else:
            os.close(users)


def _begin(folder: Path) -> None:
    """Start the keeper, which starts the server; the caller holds the start lock."""
    port, token = _free_port(), secrets.token_urlsafe(32)
    text = CONFIGURATION.format(
        port=port,
        token=token,
        pid=json.dumps(str(folder / keeper.PID), ensure_ascii=False),
        log=json.dumps(str(folder / LOG), ensure_ascii=False),
        store=json.dumps(str(folder / "store"), ensure_ascii=False),
    )
    home.write(folder / keeper.CONFIGURATION, text, 0o600)
    home.write(folder / URL, f"nats://{token}@127.0.0.1:{port}\n", 0o600)
    mark = postmaster.place(folder / postmaster.WATCH)
    try:
        if not postmaster.grab(mark, fcntl.LOCK_EX):
            raise Transient(f"the keeper of {folder} is just ending; try again")
        with (folder / "keeper.log").open("wb") as words:
            # The lock travels with the open file: it is the keeper's from its first instant on.
            command = [sys.executable, "-I", "-S", keeper.__file__]
            subprocess.run(
                [*command, str(folder), _program(), str(mark)],
                check=True,
                cwd="/",
                pass_fds=(mark,),
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
            )
    finally:
        os.close(mark)


def _program() -> str:
    """The server's program: that of the wheel, or one on the path."""
    found = shutil.which(PROGRAM, path=sysconfig.get_path("scripts")) or shutil.which(PROGRAM)
    if found is None:
        raise Refused(
            f"there is no program {PROGRAM}: pip install 'storekeep[nats]', or name a server in bus_url"
        )
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(folder: Path, url: str) -> None:
    """Wait until the server greets us; bounded."""
    port = int(url.rpartition(":")[2])
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and postmaster.held(folder / postmaster.WATCH):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as greeted:
            if greeted.recv(4) == b"INFO":
                return
        time.sleep(postmaster.PAUSE_SECONDS)
    log = folder / LOG
    last = log.read_text(errors="replace").strip().rpartition("\n")[2] if log.exists() else ""
    raise Transient(
        f"the NATS server of {folder.parent} does not come up: {last or 'see keeper.log'}"
    )


def _leave(folder: Path, users: int) -> None:
    """Give up the use of the server, and after the last wait for it to end."""
    alone = postmaster.claim(users)
    postmaster.drop(users)
    until = time.monotonic() + LEAVE_SECONDS
    while alone and postmaster.held(folder / postmaster.WATCH) and time.monotonic() < until:
        time.sleep(postmaster.PAUSE_SECONDS)
