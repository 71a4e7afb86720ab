"""Ports: rows against listeners, strangers on ports that this project wants, two behind one `localhost`."""

from __future__ import annotations

from devsup import masking, system, tree
from devsup.doctor.scene import BAD, WARN, Seen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.doctor.scene import Scene
    from devsup.system import Listener

__all__ = ["KINDS", "look"]

KINDS = ("port_taken", "port_split", "port_moved", "config_invalid", "ambiguous")


def look(scene: Scene, facts: list[str]) -> list[Seen] | None:
    """Compare them."""
    if scene.known is None:
        return None
    listeners = system.listeners()
    facts.append(f"{len({one.port for one in listeners})} are listened on")
    taken = [
        Seen(
            WARN,
            f"port_taken:{one.port}",
            f"`devsup start {one.app}` wants port {one.port}, which is taken by {masking.text(one.whose)}",
            one.instead,
            project=scene.project,
        )
        for one in scene.conflicts()
    ]
    return [*_moved(scene), *_split(scene, listeners), *taken]


def _moved(scene: Scene) -> list[Seen]:
    """Return the servers that listen on another port than the one they were started for."""
    return [
        Seen(
            WARN,
            f"port_moved:{one.row.id}",
            f"`{one.row.session}` of `{one.row.project}` was to have port {one.row.asked_port}, and listens"
            f" on {one.server.port}",
            scene.command("restart", one.row),
            project=one.row.project,
            session=one.row.session,
        )
        for one in scene.known or ()
        if one.life in ("live", "orphaned")
        and one.server.state.value == "ready"
        and one.row.asked_port is not None
        and one.server.port not in (None, one.row.asked_port)
    ]


def _split(scene: Scene, listeners: list[Listener]) -> list[Seen]:
    """
    Return the ports on which one of ours has IPv4 and a stranger IPv6, or the other way round.

    `localhost` is either then: the browser and the shell may see two different servers.
    """
    seen = []
    for one in scene.known or ():
        own = next((each for each in listeners if each.inode and each.inode == one.row.listener_inode), None)
        if own is None or one.life not in ("live", "orphaned"):
            continue
        for other in listeners:
            same_family = (":" in other.address) == (":" in own.address)
            if other.port != own.port or other.inode == own.inode or same_family:
                continue
            pid = _holder(other)
            if pid is None or (one.row.leader is not None and _is_below(pid, one.row.leader.pid)):
                continue
            seen.append(
                Seen(
                    BAD,
                    f"port_split:{own.port}",
                    f"port {own.port} is two servers: `{one.row.session}` on {own.address}, and pid {pid}"
                    f" (`{masking.brief(masking.title(system.cmdline(pid)))}`) on {other.address}",
                    f"kill {pid}",
                    project=one.row.project,
                    session=one.row.session,
                )
            )
    return seen


def _holder(one: Listener) -> int | None:
    if one.pid is not None:
        return one.pid
    return next((pid for pid in system.all_pids() if one.inode in system.socket_inodes(pid)), None)


def _is_below(pid: int, leader: int) -> bool:
    return pid == leader or leader in tree.above(pid)
