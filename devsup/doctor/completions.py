"""Completions: does the user's shell know the commands?"""

from __future__ import annotations

import os

from devsup.doctor.scene import WARN, Seen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from devsup.doctor.scene import Scene

__all__ = ["KINDS", "look"]

KINDS = ("completions_missing",)
#: What a file with our completions has in it, whoever put it there.
_SIGN = "_DEVSUP_COMPLETE"
_MOST = 256 * 1024


def look(scene: Scene, facts: list[str]) -> list[Seen] | None:
    """Look where bash, zsh and fish look; None for another shell, or none."""
    shell = os.path.basename(scene.environ.get("SHELL", ""))
    home = scene.environ.get("HOME", "")
    if shell not in _PLACES or not os.path.isabs(home):
        facts.append("no shell that has them")
        return None
    for path in _places(shell, home, scene.environ):
        if _has(path):
            facts.append(path)
            return []
    message = f"{shell} does not complete devsup's commands"
    return [Seen(WARN, f"completions_missing:{shell}", message, "devsup --install-completion")]


_PLACES = {
    "bash": (
        "{home}/.bashrc",
        "{home}/.bash_completions/devsup.sh",
        "{data}/bash-completion/completions/devsup",
        "/usr/share/bash-completion/completions/devsup",
        "/usr/local/share/bash-completion/completions/devsup",
        "/etc/bash_completion.d/devsup",
    ),
    "zsh": (
        "{home}/.zshrc",
        "{home}/.zfunc/_devsup",
        "/usr/share/zsh/site-functions/_devsup",
        "/usr/local/share/zsh/site-functions/_devsup",
        "/usr/share/zsh/vendor-completions/_devsup",
    ),
    "fish": (
        "{config}/fish/completions/devsup.fish",
        "/usr/share/fish/vendor_completions.d/devsup.fish",
        "/usr/share/fish/completions/devsup.fish",
    ),
}


def _places(shell: str, home: str, environ: Mapping[str, str]) -> list[str]:
    data = environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    return [place.format(home=home, data=data, config=config) for place in _PLACES[shell]]


def _has(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return _SIGN in file.read(_MOST)
    except OSError:
        return False
