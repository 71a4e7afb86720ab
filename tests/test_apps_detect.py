"""What is found in a project, how it is called, and what a name means from where one stands."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devsup.apps import manifest, naming
from devsup.apps.detect import App, choose, find_apps, survey
from devsup.apps.folders import Folders
from devsup.errors import Ambiguous, ConfigInvalid, NotFound
from tests.apps_layouts import EXPO, METRO, NEXT, Tree, git, lay, package

if TYPE_CHECKING:
    from collections.abc import Callable

TURBO = package(dev="turbo run dev", workspaces=["apps/*", "packages/*"])

#: Folder to (name, kind, script, manager).
Found = dict[str, tuple[str, str, str | None, str]]

LAYOUTS: dict[str, tuple[Tree, Found]] = {
    "a single Next.js app": ({"package.json": NEXT}, {".": ("web", "next", "dev", "npm")}),
    "a single Expo app": ({"package.json": EXPO}, {".": ("mobile", "expo", "start", "npm")}),
    "a bare React Native app": ({"package.json": METRO}, {".": ("mobile", "metro", "start", "npm")}),
    "metro by script": (
        {"package.json": package(start="metro serve")},
        {".": ("mobile", "metro", "start", "npm")},
    ),
    "npm workspaces": (
        {
            "package.json": package(workspaces=["apps/*"]),
            "package-lock.json": "{}",
            "apps/web/package.json": NEXT,
            "apps/mobile/package.json": EXPO,
        },
        {"apps/mobile": ("mobile", "expo", "start", "npm"), "apps/web": ("web", "next", "dev", "npm")},
    ),
    "names by role, not by folder": (
        {
            "package.json": package(workspaces=["apps/*"]),
            "apps/site/package.json": NEXT,
            "apps/phone/package.json": EXPO,
        },
        {"apps/phone": ("mobile", "expo", "start", "npm"), "apps/site": ("web", "next", "dev", "npm")},
    ),
    "pnpm with turbo and two Next.js apps": (
        {
            "package.json": {**TURBO, "packageManager": "pnpm@9.1.0"},
            "pnpm-workspace.yaml": "packages:\n  - 'apps/*'\n",
            "pnpm-lock.yaml": "",
            "apps/web/package.json": NEXT,
            "apps/docs/package.json": NEXT,
            "packages/ui/package.json": package("next", "react", build="tsc"),
            "packages/lib/package.json": package(dev="tsup --watch"),
        },
        {
            ".": ("shop", "command", "dev", "pnpm"),
            "apps/docs": ("docs", "next", "dev", "pnpm"),
            "apps/web": ("web", "next", "dev", "pnpm"),
            "packages/lib": ("lib", "command", "dev", "pnpm"),
        },
    ),
    "yarn": ({"package.json": NEXT, "yarn.lock": ""}, {".": ("web", "next", "dev", "yarn")}),
    "bun": ({"package.json": NEXT, "bun.lock": ""}, {".": ("web", "next", "dev", "bun")}),
    "an older bun": ({"package.json": NEXT, "bun.lockb": ""}, {".": ("web", "next", "dev", "bun")}),
    "packageManager over a lock file": (
        {"package.json": {**NEXT, "packageManager": "yarn@4.1.0+sha512.1"}, "package-lock.json": "{}"},
        {".": ("web", "next", "dev", "yarn")},
    ),
    "an unknown packageManager": (
        {"package.json": {**NEXT, "packageManager": "deno@2"}, "pnpm-lock.yaml": ""},
        {".": ("web", "next", "dev", "pnpm")},
    ),
    "the nearest lock file": (
        {
            "pnpm-lock.yaml": "",
            "web/package.json": NEXT,
            "web/yarn.lock": "",
            "api/package.json": package(dev="x"),
        },
        {"api": ("api", "command", "dev", "pnpm"), "web": ("web", "next", "dev", "yarn")},
    ),
    "two levels and no more": (
        {"a/b/package.json": NEXT, "a/b/c/package.json": NEXT},
        {"a/b": ("web", "next", "dev", "npm")},
    ),
    "a workspace at any depth": (
        {
            "package.json": package(workspaces=["libs/*/*/app", "deep/**", "!deep/x/**"]),
            "libs/a/b/app/package.json": NEXT,
            "deep/er/than/that/package.json": EXPO,
            "deep/x/y/z/package.json": EXPO,
            "deep/x/package.json": package(build="x"),
        },
        {
            "deep/er/than/that": ("mobile", "expo", "start", "npm"),
            "libs/a/b/app": ("web", "next", "dev", "npm"),
        },
    ),
    "workspace patterns": (
        {
            "package.json": package(
                workspaces=["./x/y/app-*", "x/z/{one,two}", "x/node_modules/*", "../out/*", "x/{"]
            ),
            "x/y/app-a/package.json": package(dev="a"),
            "x/y/lib-a/package.json": package(dev="a"),
            "x/z/one/package.json": package(dev="a"),
            "x/z/three/package.json": package(dev="a"),
            "x/node_modules/m/package.json": package(dev="a"),
        },
        {"x/y/app-a": ("app-a", "command", "dev", "npm"), "x/z/one": ("one", "command", "dev", "npm")},
    ),
    "folders that are skipped": (
        {
            f"{folder}/package.json": NEXT
            for folder in ("node_modules/a", ".next", ".hidden/a", "dist", "build", "out/a", "tests/fixtures")
        },
        {},
    ),
    "other folders with a script": (
        {
            "api/package.json": package(dev="tsx watch server.ts"),
            "Worker Two/package.json": package(start="node ."),
            "lib/package.json": package(build="tsc"),
            "empty/package.json": {},
        },
        {
            "Worker Two": ("worker-two", "command", "start", "npm"),
            "api": ("api", "command", "dev", "npm"),
        },
    ),
    "folders of one name": (
        {
            "apps/web/package.json": NEXT,
            "sites/web/package.json": NEXT,
            "apps/api/package.json": package(dev="x"),
        },
        {
            "apps/api": ("api", "command", "dev", "npm"),
            "apps/web": ("apps-web", "next", "dev", "npm"),
            "sites/web": ("sites-web", "next", "dev", "npm"),
        },
    ),
    "a folder called web that is not the web app": (
        {
            "apps/site/package.json": NEXT,
            "apps/web/package.json": package(dev="vite"),
            "web/package.json": EXPO,
        },
        {
            "apps/site": ("web", "next", "dev", "npm"),
            "apps/web": ("apps-web", "vite", "dev", "npm"),
            "web": ("mobile", "expo", "start", "npm"),
        },
    ),
    "two paths that read alike": (
        {
            "a-b/c/package.json": package(dev="x"),
            "a/b-c/package.json": package(dev="x"),
            "a/c/package.json": package(dev="x"),
        },
        {
            "a-b/c": ("a-b-c", "command", "dev", "npm"),
            "a/b-c": ("b-c", "command", "dev", "npm"),
            "a/c": ("a-c", "command", "dev", "npm"),
        },
    ),
    "Expo and React Native": (
        {"a/package.json": EXPO, "b/package.json": METRO},
        {"a": ("a", "expo", "start", "npm"), "b": ("b", "metro", "start", "npm")},
    ),
}

# (package.json, further files, kind, script)
KINDS: dict[str, tuple[dict[str, object], list[str], str | None, str | None]] = {
    "variables in front": (package("next", dev="NODE_ENV=development next dev"), [], "next", "dev"),
    "in a chain": (package("next", dev="prisma generate && next dev --turbo"), [], "next", "dev"),
    "beside another": (package("next", dev='concurrently "next dev" "tsc -w"'), [], "next", "dev"),
    "by path": (package("next", dev="node_modules/.bin/next dev"), [], "next", "dev"),
    "a bare next": (package("next", dev="next -p 3001"), [], "next", "dev"),
    "dependency of the root": (package(dev="next dev"), [], "next", "dev"),
    "script of a script": (
        package("next", **{"dev": "npm run dev:web", "dev:web": "next dev"}),
        [],
        "next",
        "dev",
    ),
    "script in a circle": (package(dev="npm run dev"), [], "command", "dev"),
    "custom server": (
        package("next", dev="node -r dotenv/config server.js"),
        ["next.config.js"],
        "next",
        "dev",
    ),
    "custom server, no config": (package("next", dev="tsx server.ts"), ["src/app/page.tsx"], "next", "dev"),
    "a monorepo's script beside pages": (package("next", dev="turbo dev"), ["next.config.js"], "next", None),
    "a library for Next.js": (package("next", dev="tsup --watch"), [], "command", "dev"),
    "a library without scripts": (package("next", "react"), [], None, None),
    "no script at all": (package("next"), ["next.config.ts"], "next", None),
    "only a production start": (package("next", start="next start"), ["app/page.js"], "next", None),
    "start is the dev server": (package("next", start="next dev"), [], "next", "start"),
    "another script is": (package("next", develop="next dev"), ["app/page.js"], "next", "develop"),
    "another folder's": (package("next", dev="cd apps/web && next dev"), [], "command", "dev"),
    "another workspace's": (package(dev="npm run dev -w web"), [], "command", "dev"),
    "another package's": (package(dev="pnpm --filter web dev"), [], "command", "dev"),
    "not the word": (package(dev="echo next"), [], "command", "dev"),
    "a build": (package(dev="next build"), [], "command", "dev"),
    "expo: dev": (package("expo", dev="expo start"), [], "expo", "dev"),
    "expo: start before dev": (package("expo", dev="expo start", start="expo start -c"), [], "expo", "start"),
    "expo: dev where start is another": (
        package("expo", dev="expo start", start="node ."),
        [],
        "expo",
        "dev",
    ),
    "expo by npx": (package("expo", start="npx expo start --port 8090"), [], "expo", "start"),
    "expo without script": (package("expo"), ["app.json"], "expo", None),
    "expo with another script": (
        package("expo", start="node scripts/start.js"),
        ["app.config.ts"],
        "expo",
        "start",
    ),
    "a library for Expo": (package("expo", build="tsc"), [], None, None),
    "react native": (package("react-native", start="react-native start --port 8088"), [], "metro", "start"),
    "react native by files": (package("react-native"), ["metro.config.js"], "metro", None),
    "a library for React Native": (package("react-native", dev="bob build"), [], "command", "dev"),
    "dev dependencies": ({"devDependencies": {"next": "1"}}, ["next.config.js"], "next", None),
    "scripts of a wrong type": ({"scripts": ["dev"], "dependencies": []}, [], None, None),
    "an empty script": (package(dev=" ", start="node ."), [], "command", "start"),
    "a script of a wrong type": ({"scripts": {"dev": 1, "start": "node ."}}, [], "command", "start"),
}


def found_in(root: Path, folder: str = ".") -> Found:
    return {naming.label(str(root), app.dir): _facts(app) for app in find_apps(str(root), str(root / folder))}


def _facts(app: App) -> tuple[str, str, str | None, str]:
    return app.name, app.kind, app.script, app.manager or ""


@pytest.mark.parametrize(("tree", "found"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_project_has_these_apps(temporary: Path, tree: Tree, found: Found) -> None:
    root = lay(temporary / "shop", tree)
    assert found_in(root) == found


@pytest.mark.parametrize(("tree", "found"), LAYOUTS.values(), ids=LAYOUTS)
def test_names_do_not_depend_on_where_one_stands(temporary: Path, tree: Tree, found: Found) -> None:
    """A name is a session, and a session is one server: it must be the same from everywhere."""
    root = lay(temporary / "shop", tree)
    for folder in found:
        assert found_in(root, folder) == found


@pytest.mark.parametrize(("content", "files", "kind", "script"), KINDS.values(), ids=KINDS)
def test_a_package_is_of_this_kind(
    temporary: Path, content: dict[str, object], files: list[str], kind: str | None, script: str | None
) -> None:
    root = lay(temporary / "shop", {"package.json": content, **dict.fromkeys(files, "")})
    apps = find_apps(str(root), str(root))
    assert [(app.kind, app.script) for app in apps] == ([(kind, script)] if kind else [])


def test_workspaces_come_first(temporary: Path) -> None:
    root = lay(
        temporary / "shop",
        {
            "package.json": package(workspaces=["packages/z"], dev="x"),
            "packages/z/package.json": package(dev="x"),
            "a/package.json": package(dev="x"),
        },
    )
    assert [app.name for app in find_apps(str(root), str(root))] == ["shop", "z", "a"]


def test_the_packages_are_installed_where_the_lock_file_is(temporary: Path) -> None:
    root = lay(
        temporary,
        {
            "package.json": package(workspaces=["apps/*"]),
            "pnpm-lock.yaml": "",
            "apps/web/package.json": NEXT,
            "apps/api/package.json": package("x", dev="x"),
            "apps/api/package-lock.json": "",
        },
    )
    apps = {app.name: app.install_dir for app in find_apps(str(root), str(root))}
    assert apps == {"web": str(root), "api": str(root / "apps/api")}


def test_a_workspace_without_lock_file_is_installed_from_its_root(temporary: Path) -> None:
    root = lay(temporary, {"package.json": package(workspaces=["apps/*"]), "apps/web/package.json": NEXT})
    assert find_apps(str(root), str(root))[0].install_dir == str(root)


# -- what one stands in -----------------------------------------------------------------------------------


def test_a_deep_app_is_found_by_standing_in_it(temporary: Path) -> None:
    root = lay(temporary, {"a/b/c/d/package.json": NEXT, "a/b/c/d/src/package.json": {"type": "module"}})
    assert found_in(root) == {}
    assert found_in(root, "a/b/c/d/src") == {"a/b/c/d": ("web", "next", "dev", "npm")}


def test_a_deep_app_takes_no_name_from_another(temporary: Path) -> None:
    """Else `web` would be one server from the root and another one from the example's folder."""
    root = lay(
        temporary, {"site/package.json": NEXT, "a/b/c/site/package.json": NEXT, "a/b/c/x/package.json": NEXT}
    )
    assert found_in(root, "a/b/c/x") == {
        "site": ("web", "next", "dev", "npm"),
        "a/b/c/x": ("x", "next", "dev", "npm"),
    }
    assert found_in(root, "a/b/c/site")["a/b/c/site"][0] == "site"
    lay(root, {"other/package.json": NEXT})
    assert found_in(root, "a/b/c/x")["a/b/c/x"][0] == "x"
    assert found_in(root, "a/b/c/site")["a/b/c/site"][0] == "a-b-c-site"


NX: Tree = {
    "nx.json": {},
    "package.json": package(
        "next", "react", "expo", devDependencies={"vite": "1", "nx": "1"}, start="nx serve web"
    ),
    "package-lock.json": "{}",
    "apps/web/project.json": {"name": "web", "projectType": "application"},
    "apps/web/next.config.js": "",
    "apps/admin/project.json": {"projectType": "application", "targets": {"serve": {}}},
    "apps/admin/vite.config.mts": "",
    "apps/admin/index.html": "",
    "apps/admin/src/app/app.tsx": "",
    "apps/phone/project.json": {"projectType": "application"},
    "apps/phone/app.json": {},
    "apps/web-e2e/project.json": {"projectType": "application"},
    "apps/web-e2e/playwright.config.ts": "",
    "apps/old/project.json": "{broken",
    "libs/ui/project.json": {"projectType": "library"},
    "libs/ui/vite.config.ts": "",
    "libs/ui/index.html": "",
}


def test_an_nx_workspace_has_the_apps_that_its_projects_are(temporary: Path) -> None:
    """Their packages are the root's, and libraries have the same files for their tests."""
    root = lay(temporary, dict(NX))
    found = found_in(root)
    assert {folder: one[:3] for folder, one in found.items() if folder != "."} == {
        "apps/web": ("web", "next", None),
        "apps/admin": ("admin", "vite", None),
        "apps/phone": ("mobile", "expo", None),
    }
    web = choose(str(root), str(root), "web")
    assert (web.manager, web.install_dir) == ("npm", str(root))
    lay(root, {"node_modules/.bin/next": ""})
    from tests.apps_layouts import plan_of

    plan = plan_of(root, "apps/web")
    assert (plan.command, plan.cwd) == ([str(root / "node_modules/.bin/next"), "dev"], str(root / "apps/web"))


def test_a_turborepo_of_pnpm_has_its_apps_and_no_root(temporary: Path) -> None:
    """What `up` starts: the root's script would start them all a second time."""
    from devsup.apps.detect import runs_others, survey

    root = lay(
        temporary,
        {
            "package.json": package(packageManager="pnpm@9.1.0", dev="turbo run dev"),
            "pnpm-workspace.yaml": "packages:\n  - apps/*\n  - 'packages/*'\n",
            "turbo.json": {"tasks": {"dev": {"cache": False, "persistent": True}}},
            "apps/web/package.json": {**NEXT, "name": "@acme/web"},
            "apps/docs/package.json": {**NEXT, "name": "@acme/docs"},
            "packages/ui/package.json": package("react", name="@acme/ui", dev="tsc --watch"),
            "packages/config/package.json": package(name="@acme/config"),
        },
    )
    seen = survey(str(root), str(root))
    assert {app.name: runs_others(app) for app in seen.apps} == {
        "web": False,
        "docs": False,
        "ui": False,
        root.name: True,
    }
    assert {app.manager for app in seen.apps} == {"pnpm"}


def test_two_deep_apps_have_two_names(temporary: Path) -> None:
    """Both were `web`, so that the second one's start found the first one's session taken."""
    deep = {"a/b/c/shop/package.json": NEXT, "a/b/c/blog/package.json": NEXT, "x/y/z/shop/package.json": NEXT}
    root = lay(temporary, dict(deep))
    assert found_in(root, "a/b/c/blog") == {"a/b/c/blog": ("blog", "next", "dev", "npm")}
    assert found_in(root, "a/b/c/shop/") == {"a/b/c/shop": ("a-b-c-shop", "next", "dev", "npm")}
    assert found_in(root, "x/y/z/shop") == {"x/y/z/shop": ("x-y-z-shop", "next", "dev", "npm")}
    assert choose(str(root), str(root / "x/y/z/shop"), "web").name == "x-y-z-shop"


def test_where_there_is_too_much_to_look_at_a_deep_app_has_its_path_for_a_name(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = lay(temporary, {"a/b/c/web/package.json": NEXT, "a/1/2/3/4/5/6/7/x/package.json": NEXT})
    assert found_in(root, "a/1/2/3/4/5/6/7/x")["a/1/2/3/4/5/6/7/x"][0] == "a-1-2-3-4-5-6-7-x"
    monkeypatch.setattr("devsup.apps.folders.MAX_DEEP", 3)
    assert found_in(root, "a/b/c/web")["a/b/c/web"][0] == "a-b-c-web"


def test_a_deep_app_takes_no_folders_name_either(temporary: Path) -> None:
    root = lay(temporary, {"web/package.json": package(dev="vite"), "a/b/c/site/package.json": NEXT})
    assert found_in(root, "a/b/c/site") == {
        "web": ("web", "vite", "dev", "npm"),
        "a/b/c/site": ("site", "next", "dev", "npm"),
    }


def test_standing_in_installed_packages_finds_none_of_them(temporary: Path) -> None:
    root = lay(temporary, {"package.json": NEXT, "node_modules/x/package.json": package(dev="x")})
    assert found_in(root, "node_modules/x") == {".": ("web", "next", "dev", "npm")}
    assert choose(str(root), str(root / "node_modules/x")).name == "web"


def test_symlinks_lead_to_one_app_and_never_in_circles(temporary: Path) -> None:
    root = lay(
        temporary / "shop", {"apps/web/package.json": NEXT, "a/b/c/api/package.json": package(dev="x")}
    )
    lay(temporary / "other", {"package.json": NEXT})
    (root / "site").symlink_to("apps/web")
    (root / "apps/loop").symlink_to("..")
    (root / "api").symlink_to("a/b/c/api")
    (root / "outside").symlink_to(temporary / "other")
    (root / "nowhere").symlink_to("missing")
    lay(root, {".cache/copy/package.json": NEXT})
    (root / "hidden").symlink_to(".cache/copy")
    assert found_in(root) == {
        "apps/web": ("web", "next", "dev", "npm"),
        "a/b/c/api": ("api", "command", "dev", "npm"),
    }


def test_many_circles_cost_nothing(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten links to one folder, six levels of a `**`: without memory that is a million folders."""
    root = lay(temporary, {"package.json": package(workspaces=["**"]), "a/web/package.json": NEXT})
    for number in range(10):
        (root / f"a/loop{number}").symlink_to(".")
        (root / f"a/web/loop{number}").symlink_to("..")
    asked: list[str] = []
    children = Folders.children

    def counting(self: Folders, folder: str) -> list[str]:
        asked.append(folder)
        return children(self, folder)

    monkeypatch.setattr(Folders, "children", counting)
    assert found_in(root) == {"a/web": ("web", "next", "dev", "npm")}
    assert len(asked) < 50


@pytest.mark.parametrize("patterns", [[], ["**"], ["*/*/web", "*/web", "trees/two", "three"]], ids=str)
def test_another_worktree_inside_is_not_a_part_of_the_project(temporary: Path, patterns: list[str]) -> None:
    """Its apps are the other project's: found from both, one folder would have two servers."""
    root = lay(
        temporary / "shop",
        {"web/package.json": NEXT, "package.json": package(workspaces=patterns, dev="turbo dev")},
    )
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    git(root, "worktree", "add", "-q", "trees/two")
    git(root, "worktree", "add", "-q", "three")
    web, shop = ("web", "next", "dev", "npm"), ("shop", "command", "dev", "npm")
    assert found_in(root) == {".": shop, "web": web}
    assert found_in(root / "trees/two") == {".": ("two", *shop[1:]), "web": web}
    assert found_in(root / "three") == {".": ("three", *shop[1:]), "web": web}


def test_a_repository_inside_a_common_project_is_a_part_of_it(temporary: Path) -> None:
    root = lay(temporary, {"devsup.toml": "", "front/.git/HEAD": "", "front/package.json": NEXT})
    assert found_in(root) == {"front": ("web", "next", "dev", "npm")}


def test_an_unreadable_folder_is_passed_over(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faked, since tests may run as root, who may read everything."""
    root = lay(temporary, {"web/package.json": NEXT, "secret/api/package.json": NEXT})
    scandir = os.scandir

    def refusing(path: str) -> object:
        if path.endswith("/secret"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert found_in(root) == {"web": ("web", "next", "dev", "npm")}


# -- choosing ---------------------------------------------------------------------------------------------

MONOREPO: Tree = {
    "package.json": package(workspaces=["apps/*", "packages/*"], dev="turbo dev"),
    "apps/web/package.json": NEXT,
    "apps/web/lib/x/package.json": package("zod", name="x"),
    "apps/docs/package.json": NEXT,
    "apps/mobile/package.json": EXPO,
    "packages/ui/src": None,
    "packages/ui/package.json": package("react", build="tsc"),
    "scripts": None,
}

CHOICES: dict[str, tuple[str, str | None, str]] = {
    "by name": (".", "docs", "apps/docs"),
    "by role": (".", "mobile", "apps/mobile"),
    "a folder's name over a role, from the root": (".", "web", "apps/web"),
    "a folder's name over a role, from another app": ("apps/docs", "web", "apps/web"),
    "the root, standing in it": (".", None, "."),
    "the root, from a folder without package": ("scripts", None, "."),
    "the app one stands in": ("apps/docs", None, "apps/docs"),
    "the app around a package of its own": ("apps/web/lib/x", None, "apps/web"),
}


@pytest.mark.parametrize(("folder", "name", "chosen"), CHOICES.values(), ids=CHOICES)
def test_this_app_is_meant(temporary: Path, folder: str, name: str | None, chosen: str) -> None:
    root = lay(temporary / "shop", MONOREPO)
    assert choose(str(root), str(root / folder), name).dir == str((root / chosen).resolve())


def test_a_package_is_not_run_by_the_script_of_the_root(temporary: Path) -> None:
    """In a library's folder `devsup start` must not start the whole monorepo."""
    root = lay(temporary / "shop", MONOREPO)
    with pytest.raises(Ambiguous) as caught:
        choose(str(root), str(root / "packages/ui/src"))
    assert caught.value.message == (
        "which app? There are `shop` (.), `docs` (apps/docs), `mobile` (apps/mobile) and `web` (apps/web)"
    )
    assert caught.value.hint == "devsup start shop"


def test_web_means_the_one_in_whose_folder_one_stands(temporary: Path) -> None:
    root = lay(temporary, {"apps/a/package.json": NEXT, "apps/b/src": None, "apps/b/package.json": NEXT})
    assert choose(str(root), str(root / "apps/b/src"), "web").name == "b"
    with pytest.raises(Ambiguous) as caught:
        choose(str(root), str(root / "apps"), "web")
    assert caught.value.message == "`web` could be any of `a` (apps/a) and `b` (apps/b)"
    assert caught.value.hint == "devsup start a"
    assert caught.value.details == {
        "candidates": [
            {"name": "a", "folder": str(root / "apps/a")},
            {"name": "b", "folder": str(root / "apps/b")},
        ]
    }


def test_the_only_app_needs_no_name(temporary: Path) -> None:
    root = lay(temporary, {"apps/site/package.json": NEXT, "docs": None})
    assert choose(str(root), str(root / "docs")).name == "web"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("wb", "devsup start web"),
        ("mobil", "devsup start mobile"),
        ("dev_server_mobile", "devsup start mobile"),
        ("doc", "devsup start docs"),
    ],
)
def test_an_unknown_name_says_what_there_is(temporary: Path, name: str, hint: str) -> None:
    root = lay(temporary / "shop", MONOREPO)
    with pytest.raises(NotFound) as caught:
        choose(str(root), str(root), name)
    assert caught.value.message == (
        f"no app `{name}` in `{root}`; there are `shop` (.), `docs` (apps/docs), `mobile` (apps/mobile)"
        " and `web` (apps/web)"
    )
    assert caught.value.hint == hint
    assert [known["name"] for known in caught.value.details["known"]] == ["shop", "docs", "mobile", "web"]


def test_one_other_app_is_said_in_the_singular(temporary: Path) -> None:
    root = lay(temporary, {"package.json": NEXT})
    with pytest.raises(NotFound) as caught:
        choose(str(root), str(root), "api")
    assert caught.value.message == f"no app `api` in `{root}`; there is `web` (.)"
    assert caught.value.hint == "devsup start web"


def test_without_any_app_the_hint_is_a_command_of_ones_own(temporary: Path) -> None:
    with pytest.raises(NotFound) as caught:
        choose(str(temporary), str(temporary))
    assert caught.value.message == (
        f"no app in `{temporary}`: no `package.json` with a `dev` or `start` script, no Python app"
    )
    assert caught.value.hint == "say what to run: `devsup start web -- COMMAND`"
    with pytest.raises(NotFound) as caught:
        choose(str(temporary), str(temporary), "web")
    assert caught.value.hint == "say what to run: `devsup start web -- COMMAND`"


PASSING_ON = {
    "npm": "npm run dev -w web-app",
    "npm, by folder": "npm run dev --workspace=apps/web",
    "npm, by prefix": "npm --prefix apps/web run dev",
    "pnpm": "pnpm --filter web-app dev",
    "yarn": "yarn workspace web-app dev",
    "bun": "bun run --filter web-app dev",
    "cd": "cd apps/web && npm run dev",
    "by another script": "npm run dev:web",
}


@pytest.mark.parametrize("text", PASSING_ON.values(), ids=PASSING_ON)
def test_a_root_that_only_runs_an_app_is_that_app(temporary: Path, text: str) -> None:
    """`npm run dev` in the root and in the app's folder are one server, and so they are here."""
    root = lay(
        temporary / "shop",
        {
            "package.json": package(workspaces=["apps/*"], dev=text, **{"dev:web": "npm run dev -w web-app"}),
            "apps/web/package.json": {**NEXT, "name": "web-app"},
            "apps/api/package.json": package(dev="node ."),
            "apps/ui/package.json": package("react"),
            "docs": None,
        },
    )
    assert [app.name for app in find_apps(str(root), str(root))] == ["api", "web"]
    assert choose(str(root), str(root)).name == "web"
    assert choose(str(root), str(root / "docs")).name == "web"
    with pytest.raises(Ambiguous):
        choose(str(root), str(root / "apps/ui"))
    with pytest.raises(NotFound):
        choose(str(root), str(root), "shop")


def test_a_root_that_does_something_first_is_an_app_of_its_own(temporary: Path) -> None:
    tree: Tree = {
        "package.json": package(dev="cd web && npm run dev", predev="make"),
        "web/package.json": NEXT,
    }
    assert found_in(lay(temporary / "shop", tree))["."][0] == "shop"


@pytest.mark.parametrize(
    "text",
    [
        "npm run dev -w web-app -- --turbo",
        "npm run build -w web-app",
        "npm run dev -w nobody",
        "npm run gone -w web-app",
        "cd apps/web && npm run dev && x",
        "cd nowhere && npm run dev",
        "npm run dev",
        "npm run dev -w back",
    ],
)
def test_a_root_that_does_more_is_an_app_of_its_own(temporary: Path, text: str) -> None:
    root = lay(
        temporary / "shop",
        {
            "package.json": package(workspaces=["apps/*"], dev=text, name="root"),
            "apps/web/package.json": {**NEXT, "name": "web-app"},
            "apps/back/package.json": package(name="back", dev="npm --prefix ../.. run dev"),
        },
    )
    assert {app.name for app in find_apps(str(root), str(root))} >= {"shop", "web"}
    assert choose(str(root), str(root)).name == "shop"


# -- broken files -----------------------------------------------------------------------------------------

BROKEN = '{\n  "name": "x",\n  "dependencies": {"next": "1"}\n  "scripts": {"dev": "next dev"}\n}\n'


def test_a_broken_file_is_named_with_its_line(temporary: Path) -> None:
    root = lay(temporary, {"package.json": BROKEN})
    for name in (None, "web"):
        with pytest.raises(ConfigInvalid) as caught:
            choose(str(root), str(root), name)
        path = root / "package.json"
        assert caught.value.message == f"`{path}`, line 4: not valid JSON: expecting ',' delimiter"
        assert caught.value.hint == f"correct `{path}` at line 4"
        assert caught.value.details == {"file": str(path), "line": 4, "column": 3}


def test_a_broken_neighbour_is_noted_and_changes_nothing(temporary: Path) -> None:
    """Neither does it stop the others, nor does it make `docs` the only Next.js app and so rename it."""
    root = lay(
        temporary, {"apps/docs/package.json": NEXT, "apps/web/package.json": BROKEN, "api/package.json": "["}
    )
    seen = survey(str(root), str(root))
    assert [app.name for app in seen.apps] == ["docs"]
    assert seen.choose("docs").kind == "next"
    assert seen.choose(None).name == "docs"
    assert seen.notes() == [
        f"passed over: `{root}/api/package.json`, line 1: not valid JSON: expecting value",
        f"passed over: `{root}/apps/web/package.json`, line 4: not valid JSON: expecting ',' delimiter",
    ]


def test_a_broken_file_that_may_be_the_one_asked_for_is_an_error(temporary: Path) -> None:
    """`web` must not start `docs` because the web app has a comma too few."""
    root = lay(temporary, {"apps/docs/package.json": NEXT, "apps/site/package.json": BROKEN})
    with pytest.raises(ConfigInvalid):
        choose(str(root), str(root), "web")
    with pytest.raises(ConfigInvalid):
        choose(str(root), str(root), "site")
    with pytest.raises(ConfigInvalid):
        choose(str(root), str(root / "apps/site"))
    assert choose(str(root), str(root / "apps/docs"), "web").name == "docs"
    with pytest.raises(NotFound):
        choose(str(root), str(root), "api")


def test_a_deep_broken_file_one_stands_in_is_an_error(temporary: Path) -> None:
    root = lay(temporary, {"web/package.json": NEXT, "a/b/c/package.json": "{"})
    with pytest.raises(ConfigInvalid):
        choose(str(root), str(root / "a/b/c"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1: not valid JSON: expecting value"),
        (b"[]", "line 1: not a JSON object"),
        (b'"next dev"', "line 1: not a JSON object"),
        (b"[" * 200_000, "not valid JSON: nested too deeply or a number too long"),
        (b'{"a": ' + b"1" * 10_000 + b"}", "not valid JSON: nested too deeply or a number too long"),
        (b"{" + b" " * (8 << 20) + b"}", "is larger than 8 MiB"),
        (b'{"dev": "\xff"}', None),
        (b"\xef\xbb\xbf{}", None),
    ],
    ids=["empty", "list", "text", "deep", "number", "large", "bytes", "bom"],
)
def test_files_that_no_editor_writes(temporary: Path, content: bytes, said: str | None) -> None:
    (temporary / "package.json").write_bytes(content)
    if said is None:
        with pytest.raises(NotFound):
            choose(str(temporary), str(temporary))
        return
    with pytest.raises(ConfigInvalid) as caught:
        choose(str(temporary), str(temporary))
    assert said in caught.value.message


def test_an_unreadable_file_says_so(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = lay(temporary, {"package.json": NEXT})
    opened = os.open

    def refusing(path: str, *options: int) -> int:
        if path.endswith("/package.json"):
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *options)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(ConfigInvalid) as caught:
        choose(str(root), str(root))
    assert caught.value.message == f"`{root}/package.json`: cannot be read (Permission denied)"


# -- pnpm-workspace.yaml ----------------------------------------------------------------------------------

YAMLS = {
    "plain": "packages:\n  - apps/web\n",
    "quoted": "packages:\n  - 'apps/web'\n",
    "double quoted, with a comment": '# x\npackages: # y\n  # z\n  - "apps/web" # w\n\ncatalog:\n  - nope\n',
    "not indented": "packages:\n- apps/web\ncatalog:\n  react: 1\n",
    "in one line": "packages: ['apps/web', \"x/*\"]\n",
    "second key": "catalog:\n  react: 1\n'packages':\n  - apps/*\n",
    "windows line ends": "packages:\r\n  - apps/*\r\n",
}


@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
def test_the_packages_of_a_pnpm_workspace(temporary: Path, text: str) -> None:
    root = lay(temporary / "a/b/c", {"pnpm-workspace.yaml": text, "apps/web/package.json": NEXT})
    assert [app.dir for app in find_apps(str(root), str(root))] == [str(root / "apps/web")]
    assert manifest.pnpm_workspaces(str(root)) in (["apps/web"], ["apps/*"], ["apps/web", "x/*"])


def test_settings_alone_are_no_packages(temporary: Path) -> None:
    root = lay(temporary, {"pnpm-workspace.yaml": "onlyBuiltDependencies:\n  - esbuild\n"})
    assert manifest.pnpm_workspaces(str(root)) == []


# -- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("web", "web"),
        ("Web App", "web-app"),
        ("@scope", "scope"),
        ("_x", "x"),
        ("日本", "app"),
        ("a" * 80, "a" * 63),
        ("a--b", "a-b"),
        ("", "app"),
    ],
)
def test_any_folder_has_a_name(text: str, name: str) -> None:
    assert naming.slug(text) == name
    assert naming.is_name(name)


@pytest.mark.parametrize("text", ["", "-a", "_a", "A", "a b", "a/b", "a" * 64, "ä", "a.b", "a\n"])
def test_what_cannot_be_a_name(text: str) -> None:
    assert not naming.is_name(text)


def test_many_long_paths_of_one_end_stay_apart() -> None:
    folders = [f"/p/{'x' * 70}{number}/web" for number in range(12)]
    names = naming.assign("/p", [((folder,), None) for folder in folders])
    assert len(set(names.values())) == 12
    assert all(naming.is_name(name) for name in names.values())


# -- speed ------------------------------------------------------------------------------------------------


def test_a_usual_monorepo_costs_little_more_than_reading_it(temporary: Path) -> None:
    """Every start pays for it: 1.4 ms where the bare reading takes 0.8, of many rounds in turns the best."""
    tree: Tree = {"package.json": TURBO, ".git/HEAD": "", "pnpm-lock.yaml": ""}
    for number in range(6):
        tree[f"apps/a{number}/package.json"] = NEXT
        tree[f"apps/a{number}/src/components"] = None
        tree[f"packages/p{number}/package.json"] = package("react", build="tsc", name=f"@x/p{number}")
        tree[f"packages/p{number}/src"] = None
    root = str(lay(temporary, tree))
    took = [(_took(root, _see), _took(root, _read)) for _ in range(100)]
    seen, read = (min(each) for each in zip(*took, strict=True))
    assert seen < 2.5 * read, f"{seen * 1e3:.2f} ms, {read * 1e3:.2f} ms"


def _took(root: str, work: Callable[[str], object]) -> float:
    began = time.perf_counter()
    work(root)
    return time.perf_counter() - began


def _see(root: str) -> None:
    find_apps(root, root)


def _read(root: str) -> None:
    for folder, _, names in os.walk(root):
        if "package.json" in names:
            with open(f"{folder}/package.json", "rb") as file:
                json.load(file)
