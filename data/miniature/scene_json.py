"""Scenes as JSON values and back."""

from typing import Any

from data.miniature.scene import Scene, Thing


def scene_json(scene: Scene) -> dict[str, Any]:
    """A scene as plain JSON values."""
    things = [
        {"kind": each.kind, "colour": each.colour, "size": each.size, "count": each.count} for each in scene.things
    ]
    return {"things": things, "background": scene.background, "relations": list(scene.relations)}


def scene_of(value: dict[str, Any]) -> Scene:
    """The scene of a JSON value; what is no scene raises ValueError."""
    try:
        things = tuple(
            Thing(each["kind"], each["colour"], each["size"], int(each["count"])) for each in value["things"]
        )
        return Scene(things, value["background"], tuple(value["relations"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a scene: {error!r} in {value!r}") from error
