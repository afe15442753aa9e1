"""Names of this user's servers: where they live, and who owns them.

A name is owned by holding a lock (``flock(2)``) on ``<socket>.lock``, which the system lets go when
the owner dies. Beside the lock, in the same file, stands a record: url, pid, user, start. So a live
owner is known with its pid, a dead one's leftovers are removed under the lock, and nothing is ever
removed that proclink did not make.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pwd
import re
import stat
import sys
import time
from pathlib import Path

from proclink import _core, _fork
from proclink._errors import AddressBlocked, AddressInUse, RuntimeDirectoryError

_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,39}")


def runtime_directory() -> Path:
    """The private directory for this user's names, made when missing.

    ``$XDG_RUNTIME_DIR/proclink``, or ``proclink-<uid>`` in the directory for temporary files.

    Raises:
        RuntimeDirectoryError: What stands there is not a directory that only this user may enter.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if base and os.path.isabs(base) and _is_private(Path(base)):
        directory = Path(base, "proclink")
    else:
        directory = Path(_temporary_directory(), f"proclink-{os.geteuid()}")
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    if not _is_private(directory):
        raise RuntimeDirectoryError(
            f"{directory} must be a directory of this user with mode 0700; remove it, or set "
            "XDG_RUNTIME_DIR to a private directory"
        )
    return directory


def _temporary_directory() -> str:
    """What ``tempfile.gettempdir()`` finds, whose lock an interrupted thread may hold."""
    found: str | None = getattr(sys.modules.get("tempfile"), "tempdir", None)
    if found is not None:
        return os.path.abspath(found)
    named = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    for directory in (*named, "/tmp", "/var/tmp", "/usr/tmp"):  # noqa: S108
        if directory and os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK):
            return os.path.abspath(directory)
    return os.getcwd()


def _is_private(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and stat.S_IMODE(status.st_mode) & 0o077 == 0
    )


def socket_path(name: str, scheme: str) -> Path:
    """Where the socket of a name lives. Long and unusual names are hashed."""
    if not _PLAIN_NAME.fullmatch(name):
        readable = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:16]
        # No plain name has a "~", so a hashed one meets none.
        name = f"{readable}~{hashlib.sha256(name.encode()).hexdigest()[:24]}"
    return runtime_directory() / f"{name}.{scheme}"


class Claim:
    """The ownership of one name, from :func:`claim` to :meth:`release`."""

    def __init__(self, path: Path, lock: _core.Descriptors) -> None:
        self.path = path
        self._lock = lock
        self._socket: tuple[int, int] | None = None

    def made_socket(self) -> None:
        """Notes that the socket at ``path`` is the owner's."""
        status = self.path.lstat()
        self._socket = (status.st_dev, status.st_ino)

    def release(self) -> None:
        """Removes what the owner made, and lets the name go."""
        if not self._lock.handles:
            return
        if self._socket is not None and _identity(self.path) == self._socket:
            self.path.unlink(missing_ok=True)
        # Under the lock: whoever waits for it looks whether the file is still the one it opened.
        # After a cleaner of files it may be another owner's.
        status = os.fstat(self._lock.handles[0])
        if _identity(_lock_path(self.path)) == (status.st_dev, status.st_ino):
            _lock_path(self.path).unlink(missing_ok=True)
        self._lock.close()


def _user_name() -> str:
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's made-up user
        return str(uid)


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def claim(path: Path, url: str) -> Claim:
    """Takes the ownership of the socket at ``path`` and clears what a dead owner left.

    Raises:
        AddressInUse: A live process owns it.
        AddressBlocked: A file that is not proclink's is in the way.
        OSError: The directory does not exist or cannot be written.
    """
    owner = _fork.new_descriptors()
    lock = _lock(path, url, owner)
    before = _read_record(lock)
    try:
        _clear_leftovers(path, before)
        record = {
            "url": url,
            "pid": os.getpid(),
            "user": _user_name(),
            "started": time.time(),
        }
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(record).encode(), 0)
    except BaseException:
        if not before:  # the file was made just now
            _lock_path(path).unlink(missing_ok=True)
        owner.close()
        raise
    return Claim(path, owner)


def _lock(path: Path, url: str, owner: _core.Descriptors) -> int:
    lock_path = _lock_path(path)
    while True:
        try:
            with _fork.no_fork:
                lock = os.open(lock_path, _LOCK_FLAGS, 0o600)
                owner.adopt(lock)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            raise
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise
            raise AddressBlocked(
                f"{lock_path} is not a plain file ({error.strerror}); remove it"
            ) from None
        try:
            status = os.fstat(lock)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise AddressBlocked(f"{lock_path} is not this user's file; remove it")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _read_record(lock).get("pid")
            owner.close()
            raise AddressInUse(url, pid if isinstance(pid, int) else None) from None
        except BaseException:
            owner.close()
            raise
        # The owner before may have removed the file between our open and our lock.
        if _identity(lock_path) == (status.st_dev, status.st_ino):
            return lock
        owner.close()


def _read_record(lock: int) -> dict[str, object]:
    try:
        record = json.loads(os.pread(lock, 4096, 0))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _clear_leftovers(path: Path, record: dict[str, object]) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    ours = stat.S_ISSOCK(status.st_mode) and status.st_uid == os.geteuid() and "pid" in record
    if not ours:
        raise AddressBlocked(
            f"{path} exists and was not made by proclink; remove it or choose another address"
        )
    path.unlink()
