"""Hydra's search path: `conf`, and as its group `scenario` the folder `scenarios` that stands beside it."""

from hydra import initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin

from kvbench.configuration.catalogue import CONF, SCENARIOS

GROUP = "scenario"
VERSION_BASE = "1.3"


class ScenarioSource(FileConfigSource):
    """A folder of files that is a group by itself."""

    @staticmethod
    def scheme() -> str:
        """What its entry of the search path begins with."""
        return "scenarios"

    def load_config(self, config_path: str) -> ConfigResult:
        """Read one file."""
        if (below := _below(config_path)) is None:
            raise ConfigLoadError(f"Config not found : {config_path}")
        return super().load_config(below)

    def available(self) -> bool:
        """Whether the folder is there."""
        return super().is_group("")

    def is_group(self, config_path: str) -> bool:
        """Whether this is the top, the group, or a folder in it."""
        return not config_path or ((below := _below(config_path)) is not None and super().is_group(below))

    def is_config(self, config_path: str) -> bool:
        """Whether this is one of the group's files."""
        below = _below(config_path)
        return bool(below) and super().is_config(below or "")

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The group's names; at the top, the group."""
        if config_path == "":
            return [] if results_filter == ObjectType.CONFIG else [GROUP]
        found: list[str] = []
        for path in SCENARIOS.iterdir() if config_path == GROUP else ():
            self._list_add_result(found, f"{GROUP}/{path.name}", path.name, results_filter)
        return sorted(found)


class _Scenarios(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("kvbench", f"{ScenarioSource.scheme()}://{SCENARIOS}")


def _below(config_path: str) -> str | None:
    """Where in the folder a path of Hydra's is; None outside the group."""
    group, _, rest = config_path.partition("/")
    return rest if group == GROUP else None


def initialized() -> initialize_config_dir:
    """A context in which Hydra composes from kvbench's own configuration."""
    return initialize_config_dir(str(CONF), version_base=VERSION_BASE)


for _plugin in (ScenarioSource, _Scenarios):
    Plugins.instance().register(_plugin)
