"""A whole run: every option, from and to YAML.

The YAML file is flat: its keys are the command's options with underscores.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from fenlei.config.data import DataConfig
from fenlei.config.kinds import as_float, as_plain, describe, fits, kinds
from fenlei.config.model import ModelConfig
from fenlei.config.optimization import OptimizationConfig
from fenlei.config.synonyms import OF_THE_CALL, meant
from fenlei.config.trust import TrustConfig
from fenlei.config.yaml_text import parsed_yaml
from fenlei.errors import ConfigError

RIVALS = {
    "dev": "dev_ratio",
    "dev_ratio": "dev",
    "test": "test_ratio",
    "test_ratio": "test",
    "min_confidence": "target_accuracy",
    "target_accuracy": "min_confidence",
    "epochs": "max_steps",
}
"""Of an option that is given: the one that it takes the place of, where that came from a file or from a run."""


@dataclass(frozen=True)
class RunConfig:
    """A whole training run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    trust: TrustConfig = field(default_factory=TrustConfig)
    given: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """The options that were named, in a file or a call, whatever their value; a copy's are those of what it was made from."""

    def __post_init__(self) -> None:
        found = [*self.data.problems(), *self.model.problems(), *self.optimization.problems(), *self.trust.problems()]
        found += self._pair_problems()
        if self.model.objective == "tokens" and self.optimization.label_smoothing:
            found.append("label_smoothing spreads over the label set, which objective 'tokens' does not see")
        if self.model.objective == "tokens" and self.optimization.imbalance in ("focal", "logit-adjustment"):
            found.append(
                f"imbalance {self.optimization.imbalance!r} compares labels, which objective 'tokens' does not see; take balanced, "
                "effective-number or balanced-sampling"
            )
        if found:
            raise ConfigError("\n".join(found))

    def _pair_problems(self) -> list[str]:
        """Options that a run on pairs of texts cannot have, and what only such a run can."""
        prompt = self.model.prompt or ""
        if self.data.pair_column is None:
            return ["prompt has a place for a second text, {pair}, and rows have one text; give pair_column"] if "{pair}" in prompt else []
        found = []
        if self.model.long in ("windows", "mean", "max"):
            found.append(
                f"long {self.model.long!r} reads one text in windows, and pair_column makes pairs; take truncate, head-tail or full"
            )
        if prompt.count("{pair}") > 1 or 0 <= prompt.find("{pair}") < prompt.find("{text}"):
            found.append(f"prompt must contain {{pair}} at most once and behind {{text}}, was {prompt!r}")
        if self.model.shots:
            found.append("shots show single texts in the prompt, and pair_column makes pairs; leave them out")
        if self.trust.out_of_scope is not None:
            found.append("out_of_scope is a file of single texts, and pair_column makes pairs; leave it out")
        return found

    @classmethod
    def from_options(cls, options: Mapping[str, Any], where: str = "options") -> RunConfig:
        """From flat option names to values; ConfigError names every unknown key and every value of the wrong kind at once."""
        problems: list[str] = []
        parts: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
        for key, value in options.items():
            part = _part_of(key)
            if part is None:
                problems.append(f"{where}: {_unknown(key)}")
                continue
            kind = _kinds_of(part)[key]
            value = os.fspath(value) if isinstance(value, os.PathLike) else as_plain(value)
            value = as_float(value) if float in kinds(kind) else value
            if not fits(value, kind):
                problems.append(f"{where}: {key} must be {describe(kind)}, was {value!r}")
                continue
            parts[part][key] = value
        if problems:
            raise ConfigError("\n".join(problems))
        return cls(**{part: _PARTS[part](**values) for part, values in parts.items()}, given=frozenset(options))

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
        """From a flat YAML file, with `overrides` (from the command line) on top."""
        try:
            loaded = parsed_yaml(Path(path).read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such configuration file") from None
        except (ValueError, OSError) as error:
            raise ConfigError(f"{path}: not a readable YAML file: {error}") from error
        if not isinstance(loaded, dict):
            raise ConfigError(f"{path}: expected 'option: value' lines, found {type(loaded).__name__}")
        named = {str(key).replace("-", "_"): value for key, value in loaded.items()}
        return cls.from_options(named, where=str(path)).overridden(overrides or {})

    def to_options(self) -> dict[str, Any]:
        """Flat: every option with its value."""
        return {key: value for part in _PARTS for key, value in dataclasses.asdict(getattr(self, part)).items()}

    def to_yaml(self) -> str:
        import yaml

        return str(yaml.safe_dump(self.to_options(), allow_unicode=True, sort_keys=False))

    def replace(self, **options: Any) -> RunConfig:
        """A copy with these flat options changed; they do not count as given."""
        return dataclasses.replace(RunConfig.from_options({**self.to_options(), **options}), given=self.given)

    def overridden(self, given: Mapping[str, Any]) -> RunConfig:
        """A copy with the flat options that a user gives on top; what one of them takes the place of is gone."""
        gone = [rival for key, rival in RIVALS.items() if given.get(key) is not None]
        options = {**self.to_options(), **dict.fromkeys(gone), **given}
        return dataclasses.replace(RunConfig.from_options(options), given=self.given.union(given))


def trained_on(run: Path) -> DataConfig:
    """The rows that a run was trained on; nothing is said of them where its folder has no configuration, as an older one may."""
    config = run / "config.yaml"
    return RunConfig.from_yaml(config).data if config.is_file() else DataConfig()


_PARTS: dict[str, Any] = {"data": DataConfig, "model": ModelConfig, "optimization": OptimizationConfig, "trust": TrustConfig}


def _all_keys() -> list[str]:
    return [f.name for part in _PARTS.values() for f in dataclasses.fields(part)]


def _unknown(key: str) -> str:
    """What is said of a key that is no option of a run."""
    if key in OF_THE_CALL:
        return f"{key!r} belongs on the command line, as --{OF_THE_CALL[key]} (in Python: {OF_THE_CALL[key]}=)"
    near = meant(key, _all_keys())
    return f"unknown option {key!r}" + (f" (did you mean {near!r}?)" if near else "")


@cache
def _kinds_of(part: str) -> dict[str, Any]:
    """The annotated kind of each option of a part; evaluating annotations is slow."""
    return get_type_hints(_PARTS[part])


def _part_of(key: str) -> str | None:
    return next((name for name, part in _PARTS.items() if key in {f.name for f in dataclasses.fields(part)}), None)
