"""
Which apps does a project have, and which one is meant?

A survey looks once and answers from what it saw. Names do not depend on the folder one stands in: an app that
only its own folder makes known (too deep to be found otherwise) is named after all others.
"""

from __future__ import annotations

import os

from devsup.apps import manifest, naming, python, scripts
from devsup.apps.folders import Folders
from devsup.apps.presets import COMMAND, KINDS, PYTHON, SERVERS
from devsup.apps.project import outside_of_generated, upward
from devsup.apps.recognise import script_behind
from devsup.errors import Ambiguous, DevsupError, NotFound
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from devsup.apps.naming import Place
    from devsup.apps.presets import Kind

__all__ = [
    "LOCK_FILES",
    "App",
    "Survey",
    "at_folder",
    "choose",
    "closest",
    "find_apps",
    "runs_others",
    "survey",
]

#: Files that say which program installs the packages around them; of several the first one counts.
LOCK_FILES = (
    ("pnpm-lock.yaml", "pnpm"),
    ("yarn.lock", "yarn"),
    ("bun.lock", "bun"),
    ("bun.lockb", "bun"),
    ("package-lock.json", "npm"),
    ("npm-shrinkwrap.json", "npm"),
    ("pnpm-workspace.yaml", "pnpm"),
)


#: What stands beside any app.
COMPANIONS = tuple(kind for kind in SERVERS if kind.companion)


class App(Record):
    """
    A named thing to run.

    ``script`` is the script of its `package.json` that runs it (None: the program of its kind is run itself),
    ``text`` what that script says. ``install_dir`` is where its packages are installed from. ``entry`` is
    where a Python app is made. ``beside`` says what it is where its folder has another app, the first. A
    configured app may have a ``command`` instead; with ``placed`` unset nobody said that its folder is this
    one.
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
    entry: str = ""
    beside: str = ""

    @property
    def place(self) -> Place:
        """Return what tells it from all other apps."""
        return (self.dir, self.beside) if self.beside else (self.dir,)


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

    def at(self, folder: str, kind: str | None = None) -> App | None:
        """Return the one app whose folder ``folder`` is: of ``kind``, else the one beside no other."""
        here = [app for app in self.apps if app.dir == folder and app.placed]
        alike = [app for app in here if app.kind == kind]
        first = alike or [app for app in here if not app.beside]
        return first[0] if len(first) == 1 else None

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
        same = _first([app for app in self.apps if KINDS[app.kind].role == name])
        here = self.around()
        near = [app for app in same if here is not None and app.dir == here.dir]
        if near:
            return near[0]
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

    def far(self, name: str | None, app: App) -> list[str]:
        """Return a line where ``name`` means ``app`` though one stands in another that it could mean."""
        here = self.around() if name is not None else None
        if here is None or here.dir == app.dir or KINDS[here.kind].role != name:
            return []
        where = naming.label(self.project, app.dir)
        return [f"`{name}` is the app in `{where}`; the one of this folder is `{here.name}`"]

    def _choose_any(self) -> App:
        nearest = self.folders.nearest(self.cwd)
        if isinstance(nearest, manifest.Broken):
            raise nearest.error()
        if (here := self.around()) is not None:
            beside = [app for app in _meant(self.apps) if app.dir == here.dir]
            if len(beside) > 1:
                raise self._ambiguous("which app? Here are", beside)
            return here
        apps = _meant(self.apps) or self.apps
        if len(apps) == 1:
            return apps[0]
        if apps:
            raise self._ambiguous("which app? There are", apps)
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
        drafts += _drafts(folders, folder)
    passed_on = _passed_on(folders, drafts)
    drafts = [app for app in drafts if app.place not in passed_on]
    # What cannot be read counts, so that a syntax error in one app does not rename its neighbour.
    ghosts: list[tuple[Place, Kind]] = [
        ((b.dir,), kind) for b in broken for kind in SERVERS if _hints_at(b, kind)
    ]
    roles = _roles([*_kinds_of(drafts), *ghosts])
    names = naming.assign(project, roles)
    apps = [app.replace(name=names[app.place]) for app in drafts]
    deep = _deep(folders, cwd, {*(app.dir for app in apps), *(b.dir for b in broken)})
    if isinstance(deep, manifest.Broken):
        broken.append(deep)
    else:
        apps += _named(folders, deep, {*(app.dir for app in apps)}, roles, names)
    aliases = {place[0]: names[target] for place, target in passed_on.items()}
    return Survey(folders=folders, cwd=cwd, apps=apps, broken=broken, aliases=aliases)


def find_apps(project: str, cwd: str) -> list[App]:
    """Return the apps of ``project``: its root's and its workspaces' first."""
    return survey(project, cwd).apps


def choose(project: str, cwd: str, name: str | None = None) -> App:
    """Return the app that ``name``, or the folder one stands in, means; raise as `Survey.choose` does."""
    return survey(project, cwd).choose(name)


def _kinds_of(apps: list[App]) -> list[tuple[Place, Kind]]:
    return [(app.place, KINDS[app.kind]) for app in apps]


def _roles(apps: list[tuple[Place, Kind]]) -> list[tuple[Place, str | None]]:
    """Return the role that each app competes for: a kind that yields, only if no other has it."""
    first = {kind.role for _, kind in apps if not kind.yields}
    pairs = [(place, None if kind.yields and kind.role in first else kind.role) for place, kind in apps]
    return list(dict.fromkeys(pairs))


def _first(apps: list[App]) -> list[App]:
    """Return those of the apps that have a role before the others."""
    return [app for app in apps if not KINDS[app.kind].yields] or apps


def _meant(apps: list[App]) -> list[App]:
    """Return the apps that may be meant by one who names none."""
    return [app for app in apps if not KINDS[app.kind].companion]


def _passed_on(folders: Folders, drafts: list[App]) -> dict[Place, Place]:
    """Return the apps whose script only runs the script of another, each with that one."""
    runs: dict[tuple[str, str | None], Place] = {
        (app.dir, app.script): app.place for app in drafts if app.script is not None
    }
    found = {}
    for app in drafts:
        package = folders.package(app.dir)
        if app.kind != COMMAND.name or app.script is None or not isinstance(package, manifest.Package):
            continue
        behind = script_behind(package, app.script, folders)
        target = runs.get((behind.folder, behind.script)) if behind is not None else None
        if target is not None:
            found[app.place] = target
    # A chain of them ends at an app; folders that pass on to each other are left as they are.
    return {place: target for place, target in found.items() if target not in found}


def _deep(folders: Folders, cwd: str, known: set[str]) -> list[App] | manifest.Broken:
    """Return the apps at or above ``cwd`` that no search from the root finds."""
    for folder in upward(cwd, folders.project):
        if folder in known or folder == folders.project:
            return []
        package = folders.package(folder)
        if isinstance(package, manifest.Broken):
            return package
        if apps := _drafts(folders, folder):
            return apps
    return []


def _named(
    folders: Folders,
    deep: list[App],
    found: set[str],
    roles: list[tuple[Place, str | None]],
    names: dict[Place, str],
) -> list[App]:
    """
    Return deep apps with names that no other one has, be it as deep: whichever of them one stands in.

    ``found`` are the folders of the others, with their ``roles`` and ``names``.
    """
    if not deep:
        return []
    here = deep[0].dir
    others = folders.deep()
    taken = set(names.values())
    if others is None or here not in others:
        # Who else there is cannot be known: a path is nobody else's.
        taken |= {naming.slug(os.path.basename(here)), *(str(KINDS[app.kind].role) for app in deep)}
        pairs: list[tuple[Place, str | None]] = [(app.place, None) for app in deep]
    else:
        beside = [
            one
            for folder in others
            if folder != here and folder not in found
            for one in _drafts(folders, folder)
        ]
        known = {role for _, role in roles}
        pairs = [
            (place, None if role in known else role) for place, role in _roles(_kinds_of([*deep, *beside]))
        ]
    assigned = naming.assign(folders.project, pairs, taken)
    return [app.replace(name=assigned[app.place]) for app in deep]


def runs_others(app: App) -> bool:
    """Tell whether an app only runs those of other folders (turbo, nx), which are apps themselves."""
    return app.command is None and app.kind == COMMAND.name and scripts.delegates(app.text)


def at_folder(folders: Folders, folder: str, kind: str | None = None) -> App | None:
    """Return the app in ``folder``, of ``kind`` or the first, however deep that lies, without a name."""
    if isinstance(folders.package(folder), manifest.Broken):
        return None
    apps = _drafts(folders, folder)
    return next((app for app in apps if app.kind == kind), apps[0] if apps else None)


def _drafts(folders: Folders, folder: str) -> list[App]:
    """Return the apps of a folder, still without names: the one of its package first."""
    apps: list[App] = []
    package = folders.package(folder)
    if isinstance(package, manifest.Package):
        apps += [_of_package(folders, package, kind, script) for kind, script in _kinds(package)]
    project = folders.python(folder)
    if project is not None:
        apps += _of_python(folders, project, {app.kind for app in apps})
    return [*apps[:1], *(app.replace(beside=app.kind) for app in apps[1:])]


def _of_package(folders: Folders, package: manifest.Package, kind: Kind, script: str | None) -> App:
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


def _of_python(folders: Folders, project: python.Project, known: set[str]) -> Iterator[App]:
    """Give the app of a Python project, unless a script of the folder's package runs it."""
    for kind in PYTHON:
        if project.dependencies.isdisjoint(kind.dependencies):
            continue
        entry = python.entry_of(project.dir, kind)
        if entry is None:
            continue
        if kind.name not in known:
            manager, install_dir = python.manager_of(project.dir, folders.project)
            yield App(
                name="",
                kind=kind.name,
                dir=project.dir,
                script=None,
                manager=manager,
                has_dependencies=True,
                install_dir=install_dir,
                entry=entry,
            )
        return


def _kinds(package: manifest.Package) -> Iterator[tuple[Kind, str | None]]:
    """
    Give the kinds that a package is an app of, each with its script (None: it has none).

    The first is the one that its `dev` or `start` script runs, or its files speak for; then come those of
    another role that the other script runs, and what stands beside any app, by a script of its own.
    """
    kinds: dict[str, Kind] = {
        name: scripts.kind_of(package, name) for name in ("dev", "start") if name in package.scripts
    }
    found: dict[str | None, tuple[Kind, str | None]] = {}
    for kind in SERVERS if any(kind is not COMMAND for kind in kinds.values()) else ():
        for name in kind.scripts:
            if kinds.get(name) is kind and not kind.companion:
                found.setdefault(kind.role, (kind, name))
                break
    if not found and (by_files := _by_files(package, kinds)) is not None:
        found[by_files[0].role] = by_files
    others = [name for name, kind in kinds.items() if not kind.companion]
    if not found and others:
        found[None] = COMMAND, others[0]
    yield from found.values()
    for kind in COMPANIONS:
        if kind.scripts[0] in package.scripts or _depends(package, kind):
            script = next((name for name in package.scripts if scripts.kind_of(package, name) is kind), None)
            if script is not None or (_depends(package, kind) and _marked(package.dir, kind)):
                yield kind, script


def _by_files(package: manifest.Package, kinds: dict[str, Kind]) -> tuple[Kind, str | None] | None:
    """Return the kind that a package is of by its dependencies and files."""
    for kind in SERVERS:
        if kind.companion or kind.python or not _depends(package, kind):
            continue
        if (kind.custom_scripts or not kinds) and _marked(package.dir, kind):
            return kind, _own_script(package, kind)
    return None


def _depends(package: manifest.Package, kind: Kind) -> bool:
    return not package.dependencies.isdisjoint(kind.dependencies)


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
    if not any(f'"{name}"' in broken.text for name in kind.dependencies):
        return kind.custom_scripts and _calls(broken.text, kind)
    # Libraries depend on Vite as well; only what has a script for it may be an app.
    return kind.custom_scripts or any(f'"{name}"' in broken.text for name in kind.scripts)


def _nothing(project: str, name: str | None = None) -> DevsupError:
    said = f"no app `{name}`, nor any other," if name else "no app"
    return NotFound(
        f"{said} in `{project}`: no `package.json` with a `dev` or `start` script, no Python app",
        hint=f"say what to run: `devsup start {name if name and naming.is_name(name) else 'web'} -- COMMAND`",
        details={"known": []},
    )


def closest(name: str, known: list[str]) -> str:
    """Return the one of ``known``, of which there is at least one, that ``name`` looks most like."""
    name = name.removeprefix(naming.SESSION_PREFIX)

    def likeness(other: str) -> tuple[bool, int]:
        return other in name or name in other, sum(one == two for one, two in zip(name, other, strict=False))

    return max(known, key=likeness)
