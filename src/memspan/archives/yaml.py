"""YAML of others, read as data: plain values, no aliases (a few lines of which make billions), and nothing nested
deeper than metadata may be. Needs ``memspan[yaml]``.
"""

from __future__ import annotations

from typing import Any

from memspan.arguments import DEEPEST_METADATA
from memspan.errors import MissingExtra

MOST_VALUES = 1 << 18  # each takes about a kilobyte


def loaded(text: str, *, typed: bool) -> Any:
    """The value in a text: ``typed`` with its numbers, truths and times as such, else all of them as texts.

    Raises ValueError saying why it is none that is read, MissingExtra.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("YAML files need PyYAML", mend='pip install "memspan[yaml]"') from error

    name = "SafeLoader" if typed else "BaseLoader"
    loader = getattr(yaml, f"C{name}", getattr(yaml, name))
    try:
        depth = 0
        for count, event in enumerate(yaml.parse(text, loader)):  # before anything is made of it
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has aliases, which are not followed")
            if count > MOST_VALUES or depth > DEEPEST_METADATA:
                raise ValueError(f"it has over {MOST_VALUES:,} values, or is nested over {DEEPEST_METADATA} deep")
        return yaml.load(text, loader)
    except (yaml.YAMLError, AttributeError, TypeError) as error:  # the latter of values that are not what they seem
        raise ValueError(str(error)) from error
