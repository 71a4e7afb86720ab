"""The registry: does it open, is its file whole, of which version and size is it?"""

from __future__ import annotations

from devsup.doctor.scene import BAD, WARN, Seen, found

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.doctor.scene import Scene
    from devsup.registry.inspecting import Inspection

__all__ = ["KINDS", "look"]

KINDS = ("registry_unusable", "registry_damaged", "registry_rebuilt", "registry_large", "lock_timeout")
#: Bytes beyond which a registry or its write-ahead log has outgrown its own bounds.
_LARGE = 256 * 2**20


def look(scene: Scene, facts: list[str]) -> list[Seen]:
    """Read the whole file."""
    if scene.trouble is not None:
        return [found(scene.trouble)]
    inspected = scene.inspection
    # What was mended by the very look; the next one finds nothing.
    seen = [
        Seen(WARN, "registry_rebuilt", warning, "devsup list --everywhere")
        for warning in scene.registry.warnings
    ]
    if inspected is None:
        facts.append("nothing was ever started here")
        return seen
    if inspected.damage:
        seen.append(
            Seen(
                BAD,
                "registry_damaged",
                f"the registry `{scene.home.registry}` is damaged: {inspected.damage[0]}",
                "devsup doctor --fix",
                mend=lambda: _rebuild(scene),
            )
        )
    size = inspected.size + inspected.wal
    if size > _LARGE:
        seen.append(_large(scene, inspected))
    facts.append(
        f"schema {inspected.version}, {-(-size // 1024)} KiB, {inspected.live} live, {inspected.ended} ended,"
        f" {inspected.events} events"
    )
    return seen


def _large(scene: Scene, inspected: Inspection) -> Seen:
    size, needed = inspected.size + inspected.wal, inspected.needed
    message = f"the registry `{scene.home.registry}` takes {size // 2**20} MiB, and needs {needed // 2**20}"
    if needed <= _LARGE:
        return Seen(WARN, "registry_large", message, "devsup doctor --fix", mend=lambda: _compact(scene))
    begin_anew = "when nothing runs move it away, history and pools with it: `devsup stop --all --everywhere`"
    return Seen(WARN, "registry_large", message, begin_anew)


def _compact(scene: Scene) -> str:
    return f"it takes {scene.registry.compact() // 2**20} MiB now"


def _rebuild(scene: Scene) -> str:
    scene.registry.rebuild_damaged()
    return scene.registry.warnings[-1] if scene.registry.warnings else "somebody else has just rebuilt it"
