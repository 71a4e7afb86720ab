"""
Which apps does a project have, and which one is meant?

A survey looks once and answers from what it saw. Names do not depend on the folder one stands in: an app that
only its own folder makes known (too deep to be found otherwise) is named after all others.
"""

from __future__ import annotations

import os

from devsup.apps import manifest, naming, scripts
from devsup.apps.folders import Folders
from devsup.apps.presets import COMMAND, KINDS, SERVERS
from devsup.apps.project import outside_of_generated, upward
from devsup.apps.recognise import script_behind
from devsup.errors import Ambiguous, DevsupError, NotFound
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.apps.presets import Kind

__all__ = ["App", "Survey", "at_folder", "choose", "closest", "find_apps", "survey"]

LOCK_FILES = (
    ("pnpm-lock.yaml", "pnpm"),
    ("yarn.lock", "yarn"),
    ("bun.lock", "bun"),
    ("bun.lockb", "bun"),
    ("package-lock.json", "npm"),
    ("npm-shrinkwrap.json", "npm"),
    ("pnpm-workspace.yaml", "pnpm"),
)


class App(Record):
    """
    A named thing to run.

    ``script`` is the script of its `package.json` that runs it (None: the program of its kind is run itself),
    ``text`` what that script says. ``install_dir`` is where its packages are installed from. A configured app
    may have a ``command`` instead; with ``placed`` unset nobody said that its folder is this one.
    """

    name: str
    kind: str
    dir: str
    script: str | None
    manager: str | None
    text: str = ""
    hooks: bool = False
    has_dependencies: bool = False
    install_dir: str = ""
    command: list[str] | None = None
    placed: bool = True


class Survey(Record):
    """
    What was seen of a project from ``cwd``: its apps, and the `package.json` files that cannot be used.

    ``aliases`` are folders whose own script only runs that of an app, by the name of that app.
    """

    folders: Folders
    cwd: str
    apps: list[App]
    broken: list[manifest.Broken]
    aliases: dict[str, str]

    @property
    def project(self) -> str:
        """Return the root of the project."""
        return self.folders.project

    def at(self, folder: str) -> App | None:
        """Return the one app whose folder ``folder`` is."""
        here = [app for app in self.apps if app.dir == folder and app.placed]
        return here[0] if len(here) == 1 else None

    def named(self, name: str) -> App | None:
        """Return the app with this name."""
        return next((app for app in self.apps if app.name == name), None)

    def around(self) -> App | None:
        """
        Return the app in whose folder one stands.

        A root that merely runs its packages' scripts is around a folder only where no package is in between.
        """
        other = False
        for folder in upward(self.cwd, self.project):
            app = self.at(folder)
            runner = folder in self.aliases or (app is not None and app.kind == COMMAND.name)
            if app is None and runner:
                app = self.named(self.aliases[folder])
            if app is not None:
                return None if other and runner and folder == self.project else app
            package = self.folders.package(folder)
            if isinstance(package, manifest.Broken):
                return None
            other = other or (package is not None and bool(package.scripts or package.dependencies))
        return None

    def choose(self, name: str | None) -> App:
        """
        Return the app called ``name``, or the one meant where no name is given.

        :raises NotFound: there is none
        :raises Ambiguous: it could be several
        :raises ConfigInvalid: the `package.json` that would tell is broken
        """
        if name is None:
            return self._choose_any()
        if (app := self.named(name)) is not None:
            return app
        same = [app for app in self.apps if KINDS[app.kind].role == name]
        here = self.around()
        if here is not None and here in same:
            return here
        for broken in self.broken:
            if self._may_be(broken, name):
                raise broken.error()
        if len(same) > 1:
            raise self._ambiguous(f"`{name}` could be any of", same)
        if same:
            return same[0]
        raise self._unknown(name)

    def notes(self) -> list[str]:
        """Return a line for each `package.json` that was passed over."""
        return [f"passed over: {broken.error().message}" for broken in self.broken]

    def _choose_any(self) -> App:
        nearest = self.folders.nearest(self.cwd)
        if isinstance(nearest, manifest.Broken):
            raise nearest.error()
        if (here := self.around()) is not None:
            return here
        if len(self.apps) == 1:
            return self.apps[0]
        if self.apps:
            raise self._ambiguous("which app? There are", self.apps)
        if self.broken:
            raise self.broken[0].error()
        raise _nothing(self.project)

    def _may_be(self, broken: manifest.Broken, name: str) -> bool:
        if name in (
            naming.slug(os.path.basename(broken.dir)),
            naming.slug(naming.label(self.project, broken.dir)),
        ):
            return True
        return any(kind.role == name and _hints_at(broken, kind) for kind in SERVERS)

    def _ambiguous(self, said: str, apps: list[App]) -> DevsupError:
        return Ambiguous(
            f"{said} {self._listed(apps)}",
            hint=f"devsup start {apps[0].name}",
            details={"candidates": [{"name": app.name, "folder": app.dir} for app in apps]},
        )

    def _unknown(self, name: str) -> DevsupError:
        if not self.apps:
            return _nothing(self.project, name)
        return NotFound(
            f"no app `{name}` in `{self.project}`; there {'is' if len(self.apps) == 1 else 'are'}"
            f" {self._listed(self.apps)}",
            hint=f"devsup start {closest(name, [app.name for app in self.apps])}",
            details={"known": [{"name": app.name, "folder": app.dir} for app in self.apps]},
        )

    def _listed(self, apps: list[App]) -> str:
        parts = [f"`{app.name}` ({naming.label(self.project, app.dir)})" for app in apps]
        return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def survey(project: str, cwd: str, folders: Folders | None = None) -> Survey:
    """Look at ``project`` from ``cwd``, which lies inside; ``folders`` is what was already seen of it."""
    project = os.path.realpath(project)
    cwd = outside_of_generated(os.path.realpath(cwd), project)
    folders = folders or Folders(project)
    broken: list[manifest.Broken] = []
    drafts: list[App] = []
    for folder in folders.candidates():
        package = folders.package(folder)
        if isinstance(package, manifest.Broken):
            broken.append(package)
        elif package is not None and (app := _draft(folders, package)) is not None:
            drafts.append(app)
    passed_on = _passed_on(folders, drafts)
    drafts = [app for app in drafts if app.dir not in passed_on]
    # What cannot be read counts, so that a syntax error in one app does not rename its neighbour.
    ghosts = [(b.dir, kind.role) for b in broken for kind in SERVERS if _hints_at(b, kind)]
    roles = [(app.dir, KINDS[app.kind].role) for app in drafts]
    names = naming.assign(project, [*roles, *ghosts])
    apps = [app.replace(name=names[app.dir]) for app in drafts]
    deep = _deep(folders, cwd, {*(app.dir for app in apps), *(b.dir for b in broken)})
    if isinstance(deep, manifest.Broken):
        broken.append(deep)
    elif deep is not None:
        role = KINDS[deep.kind].role
        known = any(other == role for _, other in (*roles, *ghosts))
        name = naming.assign(project, [(deep.dir, None if known else role)], names.values())[deep.dir]
        apps.append(deep.replace(name=name))
    aliases = {folder: names[target] for folder, target in passed_on.items()}
    return Survey(folders=folders, cwd=cwd, apps=apps, broken=broken, aliases=aliases)


def find_apps(project: str, cwd: str) -> list[App]:
    """Return the apps of ``project``: its root's and its workspaces' first."""
    return survey(project, cwd).apps


def choose(project: str, cwd: str, name: str | None = None) -> App:
    """Return the app that ``name``, or the folder one stands in, means; raise as `Survey.choose` does."""
    return survey(project, cwd).choose(name)


def _passed_on(folders: Folders, drafts: list[App]) -> dict[str, str]:
    """Return the folders whose script only runs the script of an app, each with that app's folder."""
    scripts_of = {app.dir: app.script for app in drafts}
    found = {}
    for app in drafts:
        package = folders.package(app.dir)
        if app.kind != COMMAND.name or app.script is None or not isinstance(package, manifest.Package):
            continue
        behind = script_behind(package, app.script, folders)
        if behind is not None and scripts_of.get(behind.folder) == behind.script:
            found[app.dir] = behind.folder
    # A chain of them ends at an app; folders that pass on to each other are left as they are.
    return {folder: target for folder, target in found.items() if target not in found}


def _deep(folders: Folders, cwd: str, known: set[str]) -> App | manifest.Broken | None:
    """Return the app at or above ``cwd`` that no search from the root finds."""
    for folder in upward(cwd, folders.project):
        if folder in known or folder == folders.project:
            return None
        package = folders.package(folder)
        if isinstance(package, manifest.Broken):
            return package
        if package is not None and (app := _draft(folders, package)) is not None:
            return app
    return None


def at_folder(folders: Folders, folder: str) -> App | None:
    """Return the app in ``folder``, however deep that lies, still without a name; None for none."""
    package = folders.package(folder)
    return _draft(folders, package) if isinstance(package, manifest.Package) else None


def _draft(folders: Folders, package: manifest.Package) -> App | None:
    """Return the app that a package is, still without a name; None for one that nothing runs."""
    kind, script = _kind(package)
    if kind is None:
        return None
    manager, install_dir = manager_of(folders, package.dir)
    return App(
        name="",
        kind=kind.name,
        dir=package.dir,
        script=script,
        manager=manager,
        text=package.scripts.get(script, "") if script else "",
        hooks=scripts.has_hooks(package, script) if script else False,
        has_dependencies=bool(package.dependencies),
        install_dir=install_dir,
    )


def _kind(package: manifest.Package) -> tuple[Kind | None, str | None]:
    kinds: dict[str, Kind] = {}
    for name in ("dev", "start"):
        if name in package.scripts:
            kinds[name] = scripts.kind_of(package, name)
    for kind in SERVERS:
        for name in kind.scripts:
            if kinds.get(name) is kind:
                return kind, name
    for kind in SERVERS:
        if package.dependencies.isdisjoint(kind.dependencies) or not _marked(package.dir, kind):
            continue
        return kind, _own_script(package, kind)
    for name in ("dev", "start"):
        if name in kinds:
            return COMMAND, name
    return None, None


def _own_script(package: manifest.Package, kind: Kind) -> str | None:
    """Return the script of a package that is of ``kind`` by its files; None to run the program itself."""
    first = kind.scripts[0]
    if first in package.scripts and not scripts.delegates(package.scripts[first]):
        return first
    return next((name for name in package.scripts if scripts.kind_of(package, name) is kind), None)


def manager_of(folders: Folders, folder: str) -> tuple[str, str]:
    """Return the package manager of ``folder`` and the folder whose lock file or field says so; else npm."""
    for above in upward(folder, folders.project):
        package = folders.package(above)
        if isinstance(package, manifest.Package) and package.manager is not None:
            return package.manager, above
        for name, manager in LOCK_FILES:
            if os.path.exists(os.path.join(above, name)):
                return manager, above
    root = folders.package(folders.project)
    workspaces = isinstance(root, manifest.Package) and root.workspaces
    return "npm", folders.project if workspaces else folder


def _marked(folder: str, kind: Kind) -> bool:
    return any(os.path.exists(os.path.join(folder, mark)) for mark in kind.marks)


def _calls(text: str, kind: Kind) -> bool:
    call = scripts.call_in(text)
    return call is not None and call.kind is kind


def _hints_at(broken: manifest.Broken, kind: Kind) -> bool:
    return any(f'"{name}"' in broken.text for name in kind.dependencies) or _calls(broken.text, kind)


def _nothing(project: str, name: str | None = None) -> DevsupError:
    said = f"no app `{name}`, nor any other," if name else "no app"
    return NotFound(
        f"{said} in `{project}`: no `package.json` with a `dev` or `start` script",
        hint=f"say what to run: `devsup start {name if name and naming.is_name(name) else 'web'} -- COMMAND`",
        details={"known": []},
    )


def closest(name: str, known: list[str]) -> str:
    """Return the one of ``known``, of which there is at least one, that ``name`` looks most like."""
    name = name.removeprefix(naming.SESSION_PREFIX)

    def likeness(other: str) -> tuple[bool, int]:
        return other in name or name in other, sum(one == two for one, two in zip(name, other, strict=False))

    return max(known, key=likeness)
