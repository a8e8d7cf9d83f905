"""Files shipped with the package: recipes, card templates, embedded models, labelled samples."""

from pathlib import Path
from typing import Any

import yaml

from .errors import UsageError


# What PyYAML raises for bad files. Values that contradict their tags or nest too deeply cause the built-in errors.
UNREADABLE = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError)

PACKAGE = Path(__file__).resolve().parent
ASSETS = PACKAGE / "assets"
SAMPLES = ASSETS / "samples"


def recipes_dir() -> Path:
    """Folder of the shipped recipes: inside an installed wheel, or at the top of a checkout."""
    installed = PACKAGE / "recipes"
    return installed if installed.is_dir() else PACKAGE.parent / "recipes"


def card_templates() -> Path:
    """Folder of the shipped model-card templates: inside an installed wheel, or at the top of a checkout."""
    installed = PACKAGE / "model_card"
    return installed if installed.is_dir() else PACKAGE.parent / "model_card"


def find_recipe(name: str) -> Path:
    """
    Find a recipe by path, or by its name among the shipped ones (`finetune/cola`, `recipes/finetune/cola.yaml`).

    Raises:
        UsageError: if it does not exist.
    """
    if Path(name).is_file():
        return Path(name)
    for path in (recipes_dir() / f"{name}.yaml", recipes_dir() / name, recipes_dir().parent / name):
        # A name must not lead out of the recipes folder.
        if path.is_file() and path.resolve().is_relative_to(recipes_dir().resolve()):
            return path
    raise UsageError(f"there is no recipe {name!r}: give the path of a YAML file, or a name from `gpt1 recipes ls`")


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice; YAML would keep the last one silently."""

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            own = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if own in seen:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
            seen.add(own)
        return node


def read_yaml(name: str) -> tuple[Path, dict[str, Any]]:
    """
    Read a recipe, found by [`find_recipe`].

    Returns:
        `tuple`: its path and its content.

    Raises:
        UsageError: if the file does not exist, is not a mapping in valid YAML, or gives a key twice.
    """
    file = find_recipe(name)
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader) or {}
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{file} is not valid YAML: {reason}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file} must be a mapping of `key: value` lines")
    return file, content


def model_path(model: str) -> str:
    """`gpt1-tiny` -> its folder in the package; a folder or Hub id stays as it is. A folder on disk wins."""
    embedded = ASSETS / model
    # Only plain names are embedded models; `../x` is not.
    if embedded.parent == ASSETS and not Path(model).exists() and (embedded / "config.json").is_file():
        return str(embedded)
    return model


def space_dir() -> Path:
    """Folder of the Hugging Face Space: inside an installed wheel, or at the top of a checkout."""
    return card_templates() / "space"
