"""What all deployments of a search serve, and a deployment's configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvbench.configuration.catalogue import GROUPS
from kvbench.configuration.composed import composed
from kvbench.decide.space import Deployment

STRATEGY, PARALLEL = "strategy.", "parallel."


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What all deployments serve, and what is the same in all.

    Args:
        name: of the scenario.
        groups: what is chosen of groups that are not searched, the scenario among them; as in `composed`.
        choices: of groups that are, what each value stands for.
        settings: further keys.
        trusted: packages that names may come from.
    """

    name: str
    groups: Mapping[str, Any]
    choices: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    trusted: tuple[str, ...] = ()

    def composed(self, deployment: Deployment) -> dict[str, Any]:
        """A deployment's configuration, with one strategy.

        Raises:
            UsageError: a key does not exist, or a name is unknown.
        """
        groups, degrees = dict(self.groups), dict(self.groups.get("parallel") or {})
        strategies: dict[str, Any] | None = None
        settings = {key: value for key, value in self.settings.items() if _is_of(key, deployment)}
        for key, value in deployment.items():
            if key == "strategy":
                strategies = {str(value): self.choices[key][str(value)]}
            elif key in GROUPS:
                groups[key] = self.choices[key][str(value)]
            elif key.startswith(PARALLEL):
                degrees[key.removeprefix(PARALLEL)] = value
            else:
                settings[key] = value
        return composed(groups | {"parallel": degrees}, strategies, settings, self.trusted)

    @property
    def overrides(self) -> list[str]:
        """The further keys as lines."""
        return [f"{key}={value}" for key, value in self.settings.items()]


def _is_of(key: str, deployment: Deployment) -> bool:
    """Whether a setting is of a deployment: of a strategy's own, only where that is chosen."""
    return not key.startswith(STRATEGY) or key.split(".")[1] == str(deployment.get("strategy"))
