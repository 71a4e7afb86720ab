"""
Which living processes belong to a server, and which of them are not its own to end.

A process belongs to a server if it descends from the server's guard or leader, is in the leader's session or
group, or carries the server's marker in its environment. What carries another server's marker is that
server's, and so is all below it.

Everything here is a look at a moving target: a process may appear or go between two lines. Callers that
signal go through `identity.signal`, which proves the process again.
"""

from __future__ import annotations

import os

from devsup import compactjson, identity, masking, system
from devsup.filenames import native_all, portable_all
from devsup.models import MARKER, Identity
from devsup.records import Record
from devsup.system import ProcessInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = [
    "MARKER",
    "Marker",
    "Proven",
    "Tree",
    "above",
    "inside",
    "is_guard",
    "is_shared",
    "kept",
    "lineage",
    "listening",
    "marked",
    "marker_of",
    "members",
    "proven",
    "show",
]

_PREFIX = f"{MARKER}=".encode()

#: Programs that a dev server may start, that detach themselves, and that other projects share: ending them
#: with the server would take a user's editor or another project's file watcher along. Matched against the
#: whole program name (argv[0] or comm, without folder).
_SHARED_PROGRAMS = frozenset((
    # Editors opened from an error overlay (the table of launch-editor, which Next.js, Expo and Vite use).
    "appcode", "atom", "brackets", "charm", "clion", "code", "code-insiders", "codium", "cursor", "emacs",
    "emacsclient", "goland", "gvim", "idea", "joe", "micro", "mvim", "nano", "neovide", "notepad++", "nvim",
    "phpstorm", "pycharm", "rider", "rmate", "rubymine", "studio", "subl", "sublime_text", "vim", "vscodium",
    "webstorm", "windsurf", "zed", "zeditor",
    # Browsers and openers.
    "brave", "chrome", "chromium", "chromium-browser", "firefox", "google-chrome", "microsoft-edge", "msedge",
    "opera", "safari", "xdg-open",
    # Emulators and device bridges.
    "adb", "emulator", "simulator",
    # Watchers, build daemons and agents that serve every project of the user.
    "watchman", "gradle", "gpg-agent", "ssh-agent", "tmux", "screen", "dbus-daemon",
))  # fmt: skip
_SHARED_PREFIXES = ("qemu-system", "tmux: ", "jetbrains-")
#: Daemons known by an argument, since the program is only an interpreter.
_SHARED_ARGUMENTS = ("GradleDaemon", "nx/src/daemon/server/start.js", "turbo\0daemon", "KotlinCompileDaemon")


class Marker(Record):
    """What the environment of a guard, a server or a descendant says of itself."""

    home: str
    project: str
    session: str
    id: str
    generation: int

    def __str__(self) -> str:
        return compactjson.dumps(portable_all(self.asdict()))


class Tree(Record):
    """
    A server's processes, by what is known of it.

    ``parent`` is the guard's pid where it is the leader's real parent and subreaper of all that descends from
    it. Without one (the guard is dead, or took the server over) only session and marker are left.
    """

    id: str
    leader: Identity | None
    parent: int | None = None
    #: Children of the guard that are its own helpers.
    helpers: frozenset[int] = frozenset()
    #: Programs that are left running, beside those that every server shares.
    keep: frozenset[str] = frozenset()
    #: Who was last seen to listen for the server, and the inode of that socket: whoever has it is one of its
    #: own, even without a marker, a session or a parent that says so.
    listener: tuple[int, int] | None = None


def parse(environ: bytes | None) -> Marker | None:
    """Return the marker in a raw environment block, or None."""
    if not environ:
        return None
    at = 0 if environ.startswith(_PREFIX) else environ.find(b"\0" + _PREFIX) + 1
    if at == 0 and not environ.startswith(_PREFIX):
        return None
    start = at + len(_PREFIX)
    end = environ.find(b"\0", start)
    try:
        fields = compactjson.loads(environ[start : end if end >= 0 else len(environ)].decode())
        return Marker(**native_all(fields))
    except (ValueError, TypeError, RecursionError):
        return None  # somebody else's variable of that name


def marker_of(pid: int) -> Marker | None:
    """Return the marker that process ``pid`` carries, or None (also where it cannot be read)."""
    return parse(system.environ(pid))


def members(tree: Tree, *, full: bool) -> list[ProcessInfo]:
    """
    Return the living processes of ``tree``; zombies are dead.

    ``full`` also looks at every process of the system, for those that left the tree: needed where there is no
    guard, and as the last proof that nobody is left.
    """
    found: dict[int, ProcessInfo] = {}
    seen: set[int] = set(tree.helpers)
    stack: list[int] = []
    if tree.parent is not None:
        stack += system.children(tree.parent)
    if tree.leader is not None and not identity.is_gone(tree.leader):
        stack.append(tree.leader.pid)
    while stack:
        pid = stack.pop()
        if pid in seen:
            continue
        seen.add(pid)
        info = _living(pid)
        if info is None or _is_anothers(pid, tree.id):
            continue
        found[pid] = info
        stack += system.children(pid)
    # Without a subreaper orphans go to process 1, out of the sight of their ancestors.
    if full or not system.CAPABILITIES.subreaper:
        _add_strays(tree, found, seen)
    return sorted(found.values(), key=lambda info: (info.ticks, info.pid))


def _add_strays(tree: Tree, found: dict[int, ProcessInfo], seen: set[int]) -> None:
    leader = tree.leader
    if tree.listener is not None:
        pid, inode = tree.listener
        info = _living(pid) if pid not in seen and inode in system.socket_inodes(pid) else None
        if info is not None:
            found[pid] = info
            _add_descendants(tree, pid, found, seen)
    nameless = []
    for pid in system.all_pids():
        if pid in seen or pid == tree.parent or not _may_be_ours(pid, tree):
            continue
        info = _living(pid)
        if info is None or (leader is not None and info.ticks < leader.ticks):
            continue  # older than the server: cannot have come from it
        marker = marker_of(pid)
        if marker is not None:
            if marker.id == tree.id and not is_guard(pid):
                found[pid] = info
        elif leader is not None and leader.pid in (info.sid, info.pgid):
            nameless.append(info)
    if nameless and leader is not None and _is_ours(leader, found.values()):
        found.update({info.pid: info for info in nameless})


def _may_be_ours(pid: int, tree: Tree) -> bool:
    """
    Tell whether a process is worth a closer look; False is certain.

    All but a few processes of a system are strangers, and what proves one to be ours costs thrice as much as
    to see that nothing speaks for it.
    """
    if tree.id.encode() in (system.environ(pid) or b""):
        return True
    if tree.leader is None:
        return False
    try:
        return tree.leader.pid in (os.getsid(pid), os.getpgid(pid))
    except OSError as error:
        return not isinstance(error, ProcessLookupError)


def _add_descendants(tree: Tree, pid: int, found: dict[int, ProcessInfo], seen: set[int]) -> None:
    stack = system.children(pid)
    while stack:
        below = stack.pop()
        info = _living(below) if below not in seen and below not in found else None
        if info is not None and not _is_anothers(below, tree.id):
            found[below] = info
            stack += system.children(below)


def _is_ours(leader: Identity, known: Collection[ProcessInfo]) -> bool:
    """
    Tell whether the session and group that have the number of ``leader`` are those that it made.

    The kernel gives a number to nobody while a process, a session or a group has it. So it is still the same
    as long as the leader is there, if only as a zombie, or one of the ``known`` has been in that session all
    the time. With neither it may have been given away, and its new owner may be gone again as well.
    """
    if any(leader.pid in (info.sid, info.pgid) for info in known):
        return True
    try:
        now = system.process(leader.pid)
    except PermissionError:
        return False
    return now is not None and now.ticks == leader.ticks


def _living(pid: int) -> ProcessInfo | None:
    try:
        info = system.process(pid)
    except PermissionError:
        return None
    return None if info is None or info.state in "ZX" else info


def _is_anothers(pid: int, own: str) -> bool:
    marker = marker_of(pid)
    return marker is not None and marker.id != own


def is_guard(pid: int) -> bool:
    """Tell whether ``pid`` is a guard, of whatever server."""
    return any("devsup/guard/__main__.py" in word for word in system.cmdline(pid)[:6])


def marked(home: str | None = None) -> list[tuple[ProcessInfo, Marker]]:
    """Return every living process that carries a marker (of ``home``, where given), oldest first."""
    found = []
    for pid in system.all_pids():
        marker = marker_of(pid)
        if marker is not None and (home is None or marker.home == home):
            info = _living(pid)
            if info is not None:
                found.append((info, marker))
    return sorted(found, key=lambda pair: (pair[0].ticks, pair[0].pid))


class Proven(Record):
    """What shows that a server lives: its guard, and processes that are its own."""

    guard: ProcessInfo | None
    own: list[ProcessInfo]


def proven(marked: list[ProcessInfo], *, job: bool, port: int | None) -> Proven | None:
    """
    Tell a server from what it has left running, by all processes with its marker; None for no server.

    An editor that a server opened carries its marker for ever. So the marker proves nothing by itself: a
    server has a guard; or a job file (``job``: its end removes it) and a process that is not shared with
    others; or one that listens on its ``port``.
    """
    guards = [info for info in marked if is_guard(info.pid)]
    rest = [info for info in marked if info not in guards]
    guard = guards[0] if guards else None
    leader = next((one for one in rest if guard and one.sid == one.pid and one.ppid == guard.pid), None)
    who = Identity(leader.pid, leader.ticks, "") if leader is not None else None
    shared = kept(Tree("", who), rest)
    held = listening(rest) if port is not None and (shared or not (guard or job)) else {}
    serving = {pid for pid, ones in held.items() if any(one.port == port for one in ones)}
    own = [info for info in rest if info.pid not in shared or info.pid in serving]
    return Proven(guard, own) if guard is not None or serving or (job and own) else None


def kept(tree: Tree, infos: list[ProcessInfo]) -> set[int]:
    """
    Return the pids among ``infos`` that detached themselves on purpose and are shared with others.

    Only a process in a session of its own counts: whoever stays in the server's session goes with it. What
    such a process started goes the way of its parent.
    """
    leader = tree.leader.pid if tree.leader is not None else 0
    # Whom we did not start leads no session, but may lead a group of it; its terminal is the user's.
    home = {leader, *(info.sid for info in infos if info.pid == leader)}
    away = [info for info in infos if info.sid not in home and info.pgid != leader]
    left = {info.pid for info in away if info.tty != 0 or is_shared(info, tree.keep)}
    sessions = {info.sid for info in infos if info.pid in left}
    for info in away:  # oldest first, so a parent comes before its children
        if info.pid not in left and (info.ppid in left or info.sid in sessions):
            left.add(info.pid)
    if tree.listener is not None and tree.listener[0] in left:
        # Its leader has ended, and it was in the session of a shell: the socket says that it is the server.
        left -= {pid for pid in left if pid == tree.listener[0] and _holds(tree.listener)}
    return left


def _holds(listener: tuple[int, int]) -> bool:
    pid, inode = listener
    return inode in system.socket_inodes(pid)


def is_shared(info: ProcessInfo, more: frozenset[str] = frozenset()) -> bool:
    """Tell whether a process runs a program that other projects of the user share, or one of ``more``."""
    argv = system.cmdline(info.pid)
    names = {info.comm, argv[0].rpartition("/")[2] if argv else info.comm}
    if names & more:
        return True
    if any(name in _SHARED_PROGRAMS or name.startswith(_SHARED_PREFIXES) for name in names):
        return True
    line = "\0".join(argv)
    return any(argument in line for argument in _SHARED_ARGUMENTS)


def listening(
    infos: list[ProcessInfo], *, ignore: frozenset[int] = frozenset()
) -> dict[int, list[system.Listener]]:
    """Return the listening sockets that ``infos`` hold, by pid, without those inodes in ``ignore``."""
    listeners = {one.inode: one for one in system.listeners() if one.inode not in ignore}
    if not listeners:
        return {}
    held = {info.pid: system.socket_inodes(info.pid) & listeners.keys() for info in infos}
    return {pid: [listeners[inode] for inode in sorted(inodes)] for pid, inodes in held.items() if inodes}


def lineage(pid: int) -> Iterator[ProcessInfo]:
    """
    Give process ``pid`` and those above it, as far as they are there.

    :raises OSError: on the way: one is hidden from this user
    """
    seen: set[int] = set()  # pids are reused: what was read one after another may go in a circle
    while pid > 0 and pid not in seen:
        seen.add(pid)
        info = system.process(pid)
        if info is None:
            return
        yield info
        pid = info.ppid


def above(pid: int) -> set[int]:
    """Return the pids above process ``pid``, up to the first that is hidden from this user."""
    found = set()
    try:
        for info in lineage(pid):
            found.add(info.ppid)
    except OSError:
        pass  # the hidden one is among them
    return found


def inside(tree: Tree, pid: int) -> bool:
    """Tell whether process ``pid`` is one of the tree's own (not one that it only shares, like an editor)."""
    infos = members(tree, full=True)
    return any(info.pid == pid for info in infos) and pid not in kept(tree, infos)


def show(info: ProcessInfo) -> str:
    """Return the command line of a process for people: masked, for it may be anybody's."""
    return masking.title(system.cmdline(info.pid)) or f"[{info.comm}]"
