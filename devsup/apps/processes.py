"""
What a living process is: which program it runs, which kind of dev server that makes it, who wraps whom.

Told by what it shows of its command line now, which it may have rewritten (npm and Next.js do). Only names
and hints come of that: nobody is signalled because of what he calls himself. Reads only.
"""

from __future__ import annotations

from devsup import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.system import ProcessInfo

__all__ = ["argv_of", "is_shell", "kind_of", "top_of"]

_INTERPRETERS = ("node", "nodejs", "python", "ruby", "bun", "deno")
#: Package managers: what they run is theirs alone, and they end with it.
_RUNNERS = frozenset({"npm", "npx", "npm-cli", "npx-cli", "pnpm", "pnpx", "yarn", "yarnpkg", "bun", "bunx"})
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "tcsh", "csh", "busybox"})
#: Deeper than any wrapper of a wrapper.
_MOST_HOPS = 16


def argv_of(pid: int) -> list[str]:
    """Return the command line of ``pid`` as words, also where it is a title in one piece (`npm run dev`)."""
    words = system.cmdline(pid)
    return words[0].split() if len(words) == 1 else words


def kind_of(pid: int) -> str:
    """
    Return the name of the kind of dev server that ``pid`` seems to be; `command` for anything else.

    One that only its package tells apart is the kind that it refines.
    """
    from devsup.apps.presets import COMMAND, of_program

    known = of_program(_program(argv_of(pid)))
    return (known[1] if known is not None else COMMAND).name


def is_shell(pid: int) -> bool:
    """Tell whether ``pid`` runs a shell."""
    return _program(argv_of(pid)) in _SHELLS


def top_of(info: ProcessInfo, inside: str) -> ProcessInfo:
    """
    Return the process that a person would call the server of which ``info`` is a part.

    That is ``info`` itself, or a package manager or dev server above it in the same session and below the
    folder ``inside``. Never a shell, but for the one that a package manager runs a script with; never a
    program that has merely started it (an agent, an editor): what is below this one is ended by a stop.
    """
    top = info
    for _ in range(_MOST_HOPS):
        parent = _parent(top, inside)
        if parent is not None and is_shell(parent.pid):
            words = system.cmdline(parent.pid)
            parent = _parent(parent, inside) if words[1:2] == ["-c"] else None
            parent = parent if parent is not None and _is_runner(parent) else None
        if parent is None or not (_is_runner(parent) or kind_of(parent.pid) != "command"):
            break
        top = parent
    return top


def _parent(info: ProcessInfo, inside: str) -> ProcessInfo | None:
    """Return the parent of ``info`` where it may be a part of the same server."""
    if info.ppid <= 1:
        return None
    try:
        parent = system.process(info.ppid)
    except OSError:
        return None
    if parent is None or parent.dead or parent.sid != info.sid or parent.ticks > info.ticks:
        return None
    folder = system.cwd(parent.pid)
    same_user = system.uid(parent.pid) == system.uid(info.pid)
    return parent if same_user and folder is not None and f"{folder}/".startswith(f"{inside}/") else None


def _is_runner(info: ProcessInfo) -> bool:
    return _program(argv_of(info.pid)) in _RUNNERS


def _program(words: list[str]) -> str:
    """Return the name of the program that ``words`` run: a script's, where an interpreter runs one."""
    names = [word.rpartition("/")[2] for word in words]
    name = names[0].lstrip("-") if names else ""
    if name.rstrip("0123456789.") in _INTERPRETERS:
        # `bun run dev` is bun's own work; `node --flag x.js` is that of `x`.
        script = next((word for word in names[1:] if not word.startswith("-")), "")
        if name != "bun" or script not in ("run", "x", "dev", "start"):
            name = script
    return name.removesuffix(".js").removesuffix(".cjs").removesuffix(".mjs")
