"""
Where devsup keeps its state, and whether that place can be trusted.

One folder per user, mode 0700, its files 0600. A folder that somebody else could have written is refused,
never repaired: what stands in the registry decides which processes get signals. Safe to call from many
processes at once: a folder that another process has just made is as good as our own.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from devsup.errors import RegistryUnusable
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Home", "check_home", "ensure_home", "find_home"]

_FOLDERS = ("servers", "locks", "logs", "reports")
#: Bytes of a project's own name in that of its log folder: a file name has 255 at most.
_NAME_BYTES = 100
_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_ELSEWHERE = "set `DEVSUP_HOME` to a folder of your own"


class Home(Record):
    """The state folder ``root`` (absolute) and the names of everything in it."""

    root: str

    @property
    def registry(self) -> str:
        """Return the database; only `devsup.registry` may open it."""
        return f"{self.root}/registry.db"

    @property
    def registry_lock(self) -> str:
        """Return the file that every open of the registry locks."""
        return f"{self.root}/registry.lock"

    @property
    def servers(self) -> str:
        """Return the folder of the job files."""
        return f"{self.root}/servers"

    @property
    def locks(self) -> str:
        """Return the folder of the lock files, which are never unlinked."""
        return f"{self.root}/locks"

    @property
    def logs(self) -> str:
        """Return the folder above all logs."""
        return f"{self.root}/logs"

    @property
    def reports(self) -> str:
        """Return the folder of reports about bugs in devsup."""
        return f"{self.root}/reports"

    @property
    def set_aside(self) -> str:
        """Return the folder that unusable registries are moved into."""
        return f"{self.root}/set-aside"

    def config(self, project: str) -> str:
        """Return where the checked configuration of `project` is remembered."""
        return f"{self.root}/config/{_crc(project)}.json"

    def job(self, server: str) -> str:
        """Return the file that says what the guard of `server` was asked to run."""
        return f"{self.root}/servers/{server}.json"

    def session_lock(self, scope_key: str, project: str, session: str) -> str:
        """Return the file whose lock makes one start of this session at a time."""
        owner = _crc(f"{scope_key} {project}")
        return f"{self.root}/locks/{owner}-{session}.lock"

    def log(self, project: str, session: str, generation: int) -> str:
        """Return the log of one generation of a session."""
        return f"{self._log_folder(project)}/{session}.{generation}.log"

    def owns(self, log: str) -> bool:
        """Tell whether a log is devsup's: that of an adopted server may be another program's own."""
        return log.startswith(f"{self.root}/logs/")

    def guard_log(self, project: str, session: str) -> str:
        """Return the log of the guards of a session."""
        return f"{self._log_folder(project)}/{session}.guard.log"

    def _log_folder(self, project: str) -> str:
        return f"{self.root}/logs/{_short(os.path.basename(project)) or 'root'}-{_crc(project)}"


def _short(name: str) -> str:
    """Return the beginning of a file name, cut between two letters; the bytes alone decide where."""
    raw = os.fsencode(name)
    end = _NAME_BYTES
    if len(raw) <= end:
        return name
    while end and raw[end] & 0xC0 == 0x80:  # amid a letter of UTF-8
        end -= 1
    return os.fsdecode(raw[:end])


def _crc(text: str) -> str:
    from binascii import crc32  # a shared library, and `list` names neither a lock nor a log

    return f"{crc32(os.fsencode(text)):08x}"


def find_home(environ: Mapping[str, str] = os.environ) -> Home:
    """
    Return the state folder this environment asks for; it need not exist.

    The path is resolved, so that two spellings of one folder are one home for the markers of processes.

    :raises RegistryUnusable: no variable says where, or a symbolic link of somebody else stands there
    """
    root = _named(environ)
    _check_link(root)
    return Home(os.path.realpath(root))


def _named(environ: Mapping[str, str]) -> str:
    asked = environ.get("DEVSUP_HOME", "")
    user = environ.get("HOME", "")
    if asked == "~" or asked.startswith("~/"):
        if not os.path.isabs(user):
            raise _no_home(f"`DEVSUP_HOME` is `{asked}`, and `HOME` is not set to an absolute path")
        return user + asked[1:]
    if asked:
        if not os.path.isabs(asked):
            raise _no_home(f"`DEVSUP_HOME` is `{asked}`, which is not an absolute path")
        return asked
    state = environ.get("XDG_STATE_HOME", "")
    if sys.platform != "darwin" and os.path.isabs(state):
        return f"{state}/devsup"
    if not os.path.isabs(user):
        raise _no_home("`HOME` is not set to an absolute path, so there is no place for devsup's state")
    if sys.platform == "darwin":
        return f"{user}/Library/Application Support/devsup"
    return f"{user}/.local/state/devsup"


def _no_home(message: str) -> RegistryUnusable:
    return RegistryUnusable(message, hint=_ELSEWHERE)


def check_home(home: Home) -> bool:
    """
    Return whether the state folder exists; one of ours that others could enter is closed to them.

    :raises RegistryUnusable: it is there, and it is not a folder of our own
    """
    root = home.root
    try:
        found = os.lstat(root)
        if stat.S_ISLNK(found.st_mode):
            _check_link(root)
            found = os.stat(root)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unreachable(root, error) from error
    if not stat.S_ISDIR(found.st_mode):
        raise RegistryUnusable(
            f"the state folder `{root}` is not a folder", hint=f"move it away, or {_ELSEWHERE}"
        )
    if found.st_uid != os.geteuid():
        raise RegistryUnusable(
            f"the state folder `{root}` belongs to user {found.st_uid}, devsup runs as user {os.geteuid()}",
            hint=_ELSEWHERE,
        )
    if found.st_mode & _OTHERS:
        _close_to_others(root)
    return True


def ensure_home(home: Home) -> None:
    """
    Make the state folder and its subfolders where they are missing, for this user only.

    :raises RegistryUnusable: it cannot be made, or what is there is not ours
    """
    if not check_home(home):
        _make(os.path.dirname(home.root), parents=True)
        _make(home.root)
        check_home(home)
    for name in _FOLDERS:
        _make(f"{home.root}/{name}")


def _make(path: str, *, parents: bool = False) -> None:
    try:
        if parents:
            os.makedirs(path, mode=0o700, exist_ok=True)
        else:
            os.mkdir(path, mode=0o700)
    except FileExistsError as error:
        # A loser of the race to make it finds a folder, which is all it wanted.
        if not os.path.isdir(path):
            raise RegistryUnusable(
                f"`{path}` is not a folder", hint=f"move it away, or {_ELSEWHERE}"
            ) from error
    except OSError as error:
        raise _unreachable(path, error) from error


def _check_link(root: str) -> None:
    # Who owns the link can point it elsewhere tomorrow; root can do that anyway.
    try:
        found = os.lstat(root)
    except OSError:
        return
    if stat.S_ISLNK(found.st_mode) and found.st_uid not in {0, os.geteuid()}:
        raise RegistryUnusable(
            f"the state folder `{root}` is a symbolic link that belongs to user {found.st_uid}",
            hint=_ELSEWHERE,
        )


def _close_to_others(root: str) -> None:
    try:
        os.chmod(root, 0o700)
        mode = os.stat(root).st_mode
    except OSError as error:
        if error.errno == errno.EROFS:  # nobody can write there, and we only read
            return
        raise _unreachable(root, error) from error
    if mode & _OTHERS_WRITE:  # a filesystem without modes, mounted open
        raise RegistryUnusable(f"other users can write to the state folder `{root}`", hint=_ELSEWHERE)


def _unreachable(path: str, error: OSError) -> RegistryUnusable:
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return RegistryUnusable(f"the state folder cannot be used: `{path}`: {reason}", hint=_ELSEWHERE)
