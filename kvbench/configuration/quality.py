"""What a configuration says of the quality of lossy strategies: whether, and on what, it is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from kvbench.checks import check_flag
from kvbench.configuration.catalogue import names, own_node
from kvbench.configuration.errors import UsageError, refusing
from kvbench.messages import unknown
from kvbench.studies.quality.losses import Sizes

AUTO = "auto"
PROXY = "quality.proxy"


@dataclass(frozen=True, kw_only=True)
class AskedQuality:
    """What is asked.

    Args:
        probe: whether attention's output is probed in a run: AUTO, or a flag.
        proxy: the real model that stands for the one chosen: one of kvbench's names, a folder, a .gguf file or a hub's
            name; None: none does.
        measure: whether what is not known is measured.
        text: a file; None: prose that every Python carries.
        sizes: how much is measured.
    """

    probe: bool | str = AUTO
    proxy: str | None = None
    measure: bool = False
    text: str | None = None
    sizes: Sizes = field(default_factory=Sizes)

    @property
    def proxy_path(self) -> str | None:
        """Where the proxy is: what kvbench's file of that name says, or what was given.

        Raises:
            UsageError: it is the name of a model that is figures alone.
        """
        if self.proxy not in names("model"):
            return self.proxy
        found = own_node("model", self.proxy).get("name_or_path")
        if found is None:
            real = [name for name in names("model") if own_node("model", name).get("name_or_path")]
            raise UsageError(
                f"{PROXY}={self.proxy}: it is figures without weights, and cannot be run; kvbench has "
                f"{', '.join(real)}, and a folder or a .gguf file names one of yours"
            )
        return str(found)


def asked_quality(config: Mapping[str, Any]) -> AskedQuality:
    """What a configuration asks; its `quality` is a mapping, or short for `quality.probe`.

    Raises:
        UsageError: a value is none that is allowed.
    """
    node = config.get("quality")
    given: dict[str, Any] = dict(node) if isinstance(node, Mapping) else {"probe": node}
    sizes: dict[str, Any] = {each.name: given.pop(each.name) for each in fields(Sizes) if each.name in given}
    known = [each.name for each in fields(AskedQuality) if each.name != "sizes"]
    for key in given:
        if key not in known:
            raise UsageError(f"quality: {unknown('parameter', key, [*known, *(each.name for each in fields(Sizes))])}")
    with refusing():
        asked = AskedQuality(**given, sizes=Sizes(**sizes))
        check_flag("quality.measure", asked.measure)
    if asked.probe != AUTO and not isinstance(asked.probe, bool):
        raise UsageError(f"quality is auto, true or false, got {asked.probe!r}")
    for name in ("proxy", "text"):
        value = getattr(asked, name)
        if value is not None and not (isinstance(value, str) and value.strip()):
            raise UsageError(f"quality.{name} is a {'model' if name == 'proxy' else 'path'}, or null, got {value!r}")
    return asked
