"""Whatever ends the processes of a home: no server is left, none is half made, nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from storekeep import servers
from storekeep.config import Settings
from storekeep.errors import Refused, Transient
from storekeep.servers import postmaster

pytestmark = pytest.mark.crash

# A client says which server it uses, and ends when its input ends.
CLIENT = """
import os, sys
from pathlib import Path
from storekeep import servers
from storekeep.config import Settings
from storekeep.servers import postmaster
settings = Settings(home=Path(sys.argv[1]))
with servers.lease(settings) as database:
    with database.admin() as connection:
        connection.execute("SELECT 1")
    print(postmaster.read(settings.home / "postgres").pid, flush=True)
    sys.stdin.read()
"""


def living(home: Path) -> list[str]:
    """Processes, zombies apart, that work inside the home or were told of it, clients apart."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = (process / "cwd").readlink().is_relative_to(home)
            told = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if (inside and any(told)) or any(word.startswith(str(home / "postgres")) for word in told):
            found.append(f"{process.name} {' '.join(told)}")
    return found


def within(seconds: float, what: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.02)
    return what()


CLIENTS: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def clients() -> Iterator[None]:
    """No client outlives its test, also one that failed."""
    yield
    for client in CLIENTS:
        with suppress(ProcessLookupError):
            os.killpg(client.pid, signal.SIGKILL)
        client.communicate()
    CLIENTS.clear()


def start(home: Path, program: str = CLIENT) -> subprocess.Popen[str]:
    """A client at a terminal of its own, as Ctrl-C goes to all that share one."""
    client = subprocess.Popen(
        [sys.executable, "-c", program, home],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    CLIENTS.append(client)
    return client


def server_of(client: subprocess.Popen[str]) -> int:
    assert client.stdout is not None
    return int(client.stdout.readline())


def leave(client: subprocess.Popen[str]) -> None:
    _, words = client.communicate("", timeout=60)
    assert client.returncode == 0, words


def kill(client: subprocess.Popen[str], how: signal.Signals) -> int:
    """End a client and its process group by a signal; how it ended."""
    os.killpg(client.pid, how)
    client.communicate(timeout=30)
    return client.returncode


@pytest.fixture
def ground() -> Iterator[Path]:
    """A folder that the server's user can reach, unlike pytest's own, which only its owner may enter."""
    folder = Path(tempfile.mkdtemp(prefix="sk-"))
    folder.chmod(0o755)
    yield folder
    for home in folder.iterdir():
        servers.stop(Settings(home=home), force=True)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def whole() -> Iterator[Path]:
    """A home with a database that does not run, and that no test leaves running."""
    folder = Path(tempfile.mkdtemp(prefix="sk-"))
    folder.chmod(0o755)
    settings = Settings(home=folder / "home")
    with servers.lease(settings) as database, database.admin() as connection:
        connection.execute("CREATE TABLE till (line bigint)")
    yield settings.home
    servers.stop(settings, force=True)
    shutil.rmtree(folder)


@pytest.fixture
def home(whole: Path) -> Iterator[Path]:
    yield whole
    assert within(30, lambda: living(whole) == []), living(whole)


# ---------------------------------------------------------------------------- the end of a client


def test_kill_9_of_the_only_client_stops_the_server(home: Path) -> None:
    client = start(home)
    server = server_of(client)
    assert postmaster.is_server(server, home / "postgres")
    assert kill(client, signal.SIGKILL) == -signal.SIGKILL
    assert within(10, lambda: living(home) == [])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_other_ends_stop_the_server(home: Path, how: signal.Signals) -> None:
    client = start(home)
    server_of(client)
    kill(client, how)
    if how == signal.SIGINT:
        # It unwinds, and then nothing is left at the very moment when the prompt is back.
        assert living(home) == []
    assert within(10, lambda: living(home) == [])


def test_the_server_outlives_all_clients_but_the_last(home: Path) -> None:
    first, second = start(home), start(home)
    server = server_of(first)
    assert server_of(second) == server
    kill(first, signal.SIGKILL)
    with servers.lease(Settings(home=home)):
        leave(second)
        assert postmaster.is_server(server, home / "postgres")
    assert living(home) == []


def test_a_watcher_that_was_killed_is_replaced(home: Path) -> None:
    def watchers() -> list[int]:
        return [int(line.split()[0]) for line in living(home) if "postmaster.py" in line]

    first = start(home)
    server_of(first)
    (watcher,) = watchers()
    os.kill(watcher, signal.SIGKILL)
    assert within(5, lambda: watchers() == [])
    with servers.lease(Settings(home=home)):
        assert len(watchers()) == 1
    assert len(watchers()) == 1
    kill(first, signal.SIGKILL)


def test_a_home_that_is_kept_up_outlives_its_clients(home: Path) -> None:
    settings = Settings(home=home)
    (home / "postgres" / "keep").touch()
    client = start(home)
    server = server_of(client)
    leave(client)
    with servers.lease(settings):
        assert postmaster.is_server(server, home / "postgres")
    assert within(5, lambda: not any("postmaster.py" in line for line in living(home)))
    assert servers.running(settings) is not None
    assert servers.stop(settings)
    assert not (home / "postgres" / "keep").exists()


def test_a_server_in_use_is_stopped_only_by_force(home: Path) -> None:
    settings = Settings(home=home)
    with servers.lease(settings):
        with pytest.raises(Refused, match="in use"):
            servers.stop(settings)
        assert servers.running(settings) is not None
        assert servers.stop(settings, force=True)
        assert servers.running(settings) is None


# It forks before it says which server it uses, so that the child is there when that is read.
FORKING = CLIENT.replace(
    "    print(",
    "    if os.fork() == 0:\n        signal.pause()\n    print(",
).replace("import os, sys", "import os, signal, sys")


def test_a_forked_child_shares_the_lease_of_a_parent_that_is_killed(home: Path) -> None:
    client = start(home, FORKING)
    server = server_of(client)
    os.kill(client.pid, signal.SIGKILL)
    assert client.wait(10) == -signal.SIGKILL
    time.sleep(0.5)
    assert postmaster.is_server(server, home / "postgres")
    os.killpg(client.pid, signal.SIGKILL)
    assert within(10, lambda: living(home) == [])


def test_a_forked_child_does_not_hold_on_to_what_its_parent_gave_up(home: Path) -> None:
    client = start(home, FORKING)
    server = server_of(client)
    assert client.stdin is not None
    client.stdin.close()
    client.stdin = None
    assert client.wait(30) == 0
    assert not postmaster.is_server(server, home / "postgres")
    with servers.lease(Settings(home=home)) as database:
        assert database.embedded


def test_a_server_in_another_container_is_used_and_left_to_its_own_watcher(home: Path) -> None:
    # Another container sees other process numbers: ours may there be nobody's, or somebody else's.
    apart = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us see processes as a container does")
    program = CLIENT.replace("sys.stdin.read()", "print(servers.examine(settings))")
    with servers.lease(Settings(home=home)):
        master = postmaster.read(home / "postgres")
        assert master is not None
        done = subprocess.run(
            [*apart, sys.executable, "-c", program, home],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(f"{master.pid}\n")
        assert "wrong" not in done.stdout
        assert postmaster.is_server(master.pid, home / "postgres")


def test_the_locks_of_a_client_are_not_inherited(home: Path) -> None:
    client = start(home)
    server = server_of(client)

    def opened(pid: int) -> set[str]:
        links = [path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()]
        return {path.name for path in links if path.parent == home / "postgres"}

    watchers = [int(line.split()[0]) for line in living(home) if "postmaster.py" in line]
    assert opened(server) == {"alive"}
    assert [opened(pid) for pid in watchers] == [{"users", "watch", "watch.log"}]
    assert opened(client.pid) == {"users"}
    leave(client)


# -------------------------------------------------------------------------- the end of the server


def test_a_server_that_was_killed_is_started_anew_and_has_lost_nothing(home: Path) -> None:
    settings = Settings(home=home)
    with servers.lease(settings) as database:
        with database.admin() as connection:
            connection.execute("INSERT INTO till SELECT generate_series(1, 1000)")
        master = postmaster.read(home / "postgres")
        assert master is not None
        os.kill(master.pid, signal.SIGKILL)
        again = servers.ensure(settings)
        with again.admin() as connection:
            assert connection.execute("SELECT count(*) FROM till").fetchone() == (1000,)
        found = postmaster.read(home / "postgres")
        assert found is not None
        assert found.pid != master.pid


def test_what_a_killed_server_leaves_behind_is_ended(home: Path) -> None:
    with servers.lease(Settings(home=home)) as database, database.admin() as connection:
        # Stopped, it cannot see that its postmaster is gone, and keeps a new one from starting.
        left = connection.info.backend_pid
        os.kill(left, signal.SIGSTOP)
        master = postmaster.read(home / "postgres")
        assert master is not None
        os.kill(master.pid, signal.SIGKILL)
        assert within(5, lambda: postmaster.servers(home / "postgres") == [left])
        threading.Timer(0.5, os.kill, [left, signal.SIGCONT]).start()
        with servers.ensure(Settings(home=home)).admin() as again:
            assert again.execute("SELECT 1").fetchone() == (1,)
        assert not postmaster.is_server(left, home / "postgres")


# ---------------------------------------------------------------------------------- the beginning


def test_of_many_that_start_at_once_one_starts_the_server(ground: Path) -> None:
    home = ground / "home"
    clients = [start(home) for _ in range(4)]
    assert len({server_of(client) for client in clients}) == 1
    for client in clients:
        leave(client)
    assert living(home) == []


def test_coming_and_going_never_meets_a_dead_server(home: Path) -> None:
    comes_and_goes = CLIENT.partition("with servers")[0] + (
        "import random, time\n"
        "for _ in range(5):\n"
        "    with servers.lease(settings) as database, database.admin() as connection:\n"
        "        connection.execute('SELECT 1')\n"
        "        time.sleep(random.random() / 50)\n"
        "    time.sleep(random.random() / 10)\n"
    )
    for client in [start(home, comes_and_goes) for _ in range(3)]:
        leave(client)
    assert living(home) == []


@pytest.mark.parametrize(
    ("how", "after"),
    [(signal.SIGINT, 0.0), (signal.SIGKILL, 0.2), (signal.SIGINT, 0.5)],
)
def test_an_end_while_the_cluster_is_made_leaves_nothing_half_made(
    ground: Path, how: signal.Signals, after: float
) -> None:
    home = ground / "home"
    client = start(home)
    assert within(10, lambda: any((home / "postgres").glob("cluster*")))
    time.sleep(after)
    kill(client, how)
    if how == signal.SIGINT:
        assert living(home) == []
    assert within(30, lambda: living(home) == [])
    with servers.lease(Settings(home=home)) as database, database.admin() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert living(home) == []
    assert not list((home / "postgres").glob("cluster.new-*"))


def test_a_start_lock_that_is_held_is_waited_for_and_then_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storekeep.servers.home.LOCK_SECONDS", 0.1)
    with postmaster.locked(home / "postgres" / "lock", 1):
        with pytest.raises(Transient, match="has been starting or stopping"):
            servers.ensure(Settings(home=home))
        found = {finding.name: finding for finding in servers.examine(Settings(home=home))}
    assert "has been held for" in found["locks"].says
