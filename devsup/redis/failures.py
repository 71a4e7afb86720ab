"""
What can be wrong with a Redis, in words, with what to do about it. Pure.

Nothing said here holds the password, though Redis repeats the arguments of a command that it does not know.
"""

from __future__ import annotations

import _socket
import errno

from devsup.errors import FleetUnreachable
from devsup.masking import MASK
from devsup.redis.resp import ErrorReply, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.redis.address import Address

    Cause = str | OSError | ProtocolError

__all__ = ["NO_TLS", "failed", "words"]

#: The cause where Python was built without OpenSSL.
NO_TLS = "this Python cannot speak TLS"

_RUNS = "start Redis there, or name one that runs: `DEVSUP_FLEET`, or `url` below `[fleet]` in devsup.toml"
_ALIVE = "see whether Redis is alive there, and whether the network lets you through"
_CLEAR = "where it speaks no TLS, write `redis://`, or give the port that does"
# An address as an example would be masked.
_LOGIN = "put user and password into the address, before the host: `USER:PASSWORD@`, or `:PASSWORD@`"
#: Code of an error reply -> what it means, and what to do.
_REPLIES = {
    "NOAUTH": ("it wants a password", _LOGIN),
    "WRONGPASS": ("it refuses this user or password", _LOGIN),
    "NOPERM": ("its access rules forbid this to the user", "allow it: `ACL SETUSER`, or use another user"),
    "OOM": ("it is out of memory (`maxmemory`)", "raise its `maxmemory`, or remove data of others from it"),
    "READONLY": ("it is a read-only replica", "name the primary that it follows in the address"),
    "LOADING": ("it is still loading its data", "try again in a moment"),
    "BUSY": ("a script keeps it busy", "try again in a moment; `SCRIPT KILL` ends the script"),
    "MISCONF": ("it cannot save its data and refuses writes", "see to its disk: its own log says more"),
    "CLUSTERDOWN": ("its cluster is down", "see to the cluster: `CLUSTER INFO` says more"),
    "MOVED": ("it is a node of a cluster, and the key lies on another", "name the node that has it"),
    "ASK": ("it is a node of a cluster, and the key is on its way to another", "try again in a moment"),
    "CROSSSLOT": (
        "it is a node of a cluster, and the keys lie on several",
        "use a Redis without cluster mode",
    ),
    "TRYAGAIN": ("its cluster is moving the keys", "try again in a moment"),
    "MASTERDOWN": ("it is a replica without its primary", "name the primary in the address"),
    "NOREPLICAS": ("too few replicas follow it for writes", "see to its replicas: `INFO replication`"),
    "UNKILLABLE": ("a script keeps it busy", "wait, or restart Redis: the script cannot be ended"),
    "WRONGTYPE": (
        "another program has written where devsup keeps something",
        "remove the keys that are not devsup's, or name another database in the address",
    ),
    "DENIED": ("it is in protected mode and lets only its own host in", "set a password on it, and use it"),
}


def failed(address: Address, cause: Cause) -> FleetUnreachable:
    """
    Return ``cause`` (an error reply, an error of the system, or words) as an error to raise.

    Its message names the address without the password and says what is wrong in words; its hint what to do.
    """
    text, hint = words(address, cause)
    details = {"address": str(address), "cause": text}
    if isinstance(cause, ErrorReply):
        details["reply"] = _without_password(address, str(cause))
    return FleetUnreachable(f"Redis at `{address}` cannot be used: {text}", hint=hint, details=details)


def words(address: Address, cause: Cause) -> tuple[str, str | None]:
    """Return what is wrong, in words, and what to do about it where that is known."""
    if isinstance(cause, ErrorReply):
        return _of_reply(address, cause)
    if isinstance(cause, ProtocolError):
        if address.tls or not str(cause).startswith("\\x15"):
            return f"what listens there is no Redis: it says `{cause}`", _RUNS
        return "it speaks TLS only", "write the address with `rediss://`"
    if isinstance(cause, OSError):
        return _of_system(address, cause)
    return cause, "use a Python that has the module `ssl`" if cause == NO_TLS else None


def _of_reply(address: Address, reply: ErrorReply) -> tuple[str, str | None]:
    text = _without_password(address, str(reply))
    if reply.code in _REPLIES:
        meaning, hint = _REPLIES[reply.code]
        if reply.code in {"MOVED", "ASK"} and len(parts := text.split()) > 2:
            meaning += f", `{parts[2]}`"
        elif reply.code == "NOPERM":
            meaning += f" (`{text}`)"
        return meaning, hint
    if "max number of clients" in text:
        return "it has as many clients as it allows", "raise its `maxclients`, or end some of them"
    if "DB index is out of range" in text or "SELECT is not allowed in cluster" in text:
        return f"it has no database {address.db}", "name another in the address: `/0` is the first"
    if "AUTH" in text and "without any password configured" in text:
        return "it has no password, and the address gives one", "take the password out of the address"
    if "WRONGTYPE" in text or "on a nil value" in text:  # in the words of a script; no number, where one is
        return _REPLIES["WRONGTYPE"]
    if text.startswith(f"{reply.code} unknown command "):
        name = text.split()[3].strip("`',")
        return (
            f"it does not know `{name}`",
            "name a Redis that keeps data (no Sentinel) and has all commands",
        )
    return f"it answers `{text}`", None


def _of_system(address: Address, error: OSError) -> tuple[str, str | None]:
    # Not by `isinstance`: that would load OpenSSL to ask whether it has failed.
    if type(error).__module__ == "ssl":
        return _of_tls(error)
    if isinstance(error, _socket.gaierror):
        return f"the name `{address.host}` leads nowhere ({error.strerror})", "see to the name in the address"
    if isinstance(error, TimeoutError) and error.errno is None:
        return str(error), _CLEAR if "TLS" in str(error) else _ALIVE
    code = error.errno
    if code == errno.ECONNREFUSED:
        return "connection refused", _RUNS
    if address.path is not None and code == errno.ENOENT:
        return "there is no such socket", _RUNS
    if address.path is not None and code in {errno.EACCES, errno.EPERM}:
        return "this user may not use the socket", "see to the permissions of the socket and its folder"
    if address.path is not None and code == errno.EAGAIN:
        return "too many wait for its socket", "try again in a moment"
    if code in {errno.ECONNRESET, errno.EPIPE}:
        tls = None if address.tls or address.path else "where it speaks TLS only, write `rediss://`"
        return "it broke the connection off", tls
    if address.tls and code == errno.ENOENT:
        return "no such file as the address names", "see to the `ssl_` options of the address"
    return (error.strerror or str(error)).lower(), _RUNS


def _of_tls(error: OSError) -> tuple[str, str | None]:
    reason = str(getattr(error, "verify_message", "") or getattr(error, "reason", "") or error)
    if hasattr(error, "verify_message"):
        return (
            f"its certificate is not to be trusted: {reason}",
            "name the file of its authority in the address: `?ssl_ca_certs=FILE`",
        )
    if reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING"}:
        return "it does not speak TLS", _CLEAR
    return f"TLS failed: {reason.replace('_', ' ').lower()}", "see to the `ssl_` options of the address"


def _without_password(address: Address, text: str) -> str:
    return text.replace(address.password, MASK) if address.password else text
