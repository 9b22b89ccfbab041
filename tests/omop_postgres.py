"""A PostgreSQL server of one's own: in a temporary folder, on a socket in it, without TCP."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "8MB",
    "max_connections": "10",
    "autovacuum": "off",
    "max_wal_senders": "0",
    "wal_level": "minimal",
}

# Runs the server until the pipe to the tests closes, so not longer than these live, and removes its
# files. $1 is the folder of the programs, $2 that of the server, the rest are its options.
KEEPER = """
"$1"/initdb -D "$2"/data -U mrfast --auth=trust --no-sync --encoding=UTF8 --locale=C || exit
programs=$1 folder=$2; shift 2
"$programs"/postgres -D "$folder"/data -k "$folder" "$@" < /dev/null & server=$!
read -r _
kill -INT $server
wait $server
rm -rf "$folder"
"""


def programs() -> Path | None:
    """Folder of the newest server programs; None where there is none."""
    if os.name != "posix":
        return None
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    folders = [path for path in found if (path / "initdb").is_file()]
    on_path = shutil.which("initdb")
    if on_path:
        folders.insert(0, Path(on_path).resolve().parent)
    return next((path for path in reversed(folders) if (path / "postgres").is_file()), None)


def owner() -> str | None:
    """Unprivileged user for the server, which refuses to run as root; None if we are not root."""
    import pwd

    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise OSError("no unprivileged user to run PostgreSQL as")


@contextmanager
def server() -> Iterator[str]:
    """Start a server and yield its URL; it and its files are gone afterwards."""
    import pwd

    bin_folder = programs()
    assert bin_folder is not None
    user = owner()
    folder = Path(tempfile.mkdtemp(prefix="mrfast-pg-"))  # short: it holds a socket
    become = {}
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        become = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(folder)}
    options = [f"--{key}={value}" for key, value in SETTINGS.items()]
    with (folder / "log").open("wb") as log:
        keeper = subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, "keeper", bin_folder, folder, *options],
            cwd="/", env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log,
            start_new_session=True, **become,
        )  # fmt: skip
    try:
        ready = [bin_folder / "pg_isready", "-q", "-h", folder, "-U", "mrfast", "-d", "postgres"]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, env=environment, check=False).returncode:
            if keeper.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"PostgreSQL did not start: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield f"postgresql+psycopg://mrfast@/postgres?host={folder}"
    finally:
        assert keeper.stdin is not None
        keeper.stdin.close()  # ends sessions, then the server
        keeper.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
