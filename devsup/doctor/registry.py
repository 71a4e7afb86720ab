"""The registry: does it open, is its file whole, of which version and size is it?"""

from __future__ import annotations

from devsup.doctor.scene import BAD, WARN, Seen, found

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.doctor.scene import Scene

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
        message = f"the registry `{scene.home.registry}` takes {size // 2**20} MiB"
        seen.append(Seen(WARN, "registry_large", message, "devsup stop --all --everywhere"))
    facts.append(
        f"schema {inspected.version}, {-(-size // 1024)} KiB, {inspected.live} live, {inspected.ended} ended,"
        f" {inspected.events} events"
    )
    return seen


def _rebuild(scene: Scene) -> str:
    scene.registry.rebuild_damaged()
    return scene.registry.warnings[-1] if scene.registry.warnings else "somebody else has just rebuilt it"
