"""The space that a search looks in: which options vary, and between what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from fenlei.config import RunConfig
from fenlei.config.model import ADAPTERS
from fenlei.config.synonyms import meant
from fenlei.config.yaml_text import parsed_yaml
from fenlei.errors import ConfigError, shortened

Space = dict[str, BaseDistribution]

TUNABLE = (
    "learning_rate", "batch_size", "epochs", "warmup_ratio", "weight_decay", "label_smoothing", "max_grad_norm",
    "lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "head", "layers", "max_length", "prompt", "objective", "shots",
)  # fmt: skip
"""Not the model, the method or the tuning: each has learning rates of its own, so that it wants a search of its own."""

LORA_ONLY = frozenset({"lora_rank", "lora_alpha", "lora_dropout", "lora_targets"})
RATE_SPAN = 5.0
"""The usual space reaches from the usual learning rate over this to the usual one times this."""
RANGE_KEYS = ("low", "high", "log", "step")


def read_space(path: str | Path) -> dict[str, Any]:
    """What a YAML file says of each option; ConfigError where it cannot be read."""
    try:
        loaded = parsed_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable YAML file: {error}") from error
    if not isinstance(loaded, dict) or not loaded:
        found = shortened(loaded)
        raise ConfigError(f"{path}: expected lines such as 'learning_rate: {{low: 1.0e-5, high: 1.0e-3, log: true}}', found {found}")
    return {str(name).replace("-", "_"): given for name, given in loaded.items()}


def space_from(given: Mapping[str, Any], usual: RunConfig, where: str = "space") -> Space:
    """The space that `given` describes, checked against the run whose other options are `usual`; ConfigError names every problem."""
    space: Space = {}
    problems = []
    for name, described in given.items():
        try:
            space[name] = _distribution(name, described, usual)
        except ConfigError as error:
            problems += [f"{where}: {line}" for line in str(error).splitlines()]
    if problems:
        raise ConfigError("\n".join(problems))
    if usual.model.tuning not in ADAPTERS and (strange := sorted(LORA_ONLY & space.keys())):
        raise ConfigError(f"{where}: {', '.join(strange)} belong to tuning 'lora' and 'qlora', and this is tuning {usual.model.tuning!r}")
    if usual.optimization.max_steps is not None and "epochs" in space:
        raise ConfigError(f"{where}: epochs has no effect where max_steps is given; leave one of them out")
    return space


def usual_space(usual: RunConfig) -> Space:
    """Around the options of `usual`: what most often decides, and no more, for few trials cannot search many options."""
    options = usual.to_options()
    rate, rows = float(options["learning_rate"]), int(options["batch_size"])
    space: Space = {
        "learning_rate": FloatDistribution(rate / RATE_SPAN, rate * RATE_SPAN, log=True),
        "batch_size": CategoricalDistribution((max(1, rows // 2), rows, 2 * rows)),
    }
    if options["max_steps"] is None:
        epochs = float(options["epochs"])
        if epochs.is_integer():
            space["epochs"] = FloatDistribution(max(1.0, epochs // 2), epochs + max(1.0, epochs // 3), step=1.0)
        else:
            space["epochs"] = FloatDistribution(epochs / 2, epochs * 1.5)
    if options["tuning"] in ADAPTERS:
        space["lora_rank"] = CategoricalDistribution(tuple(sorted({8, 16, 32, 64} | {options["lora_rank"]})))
        space["lora_alpha"] = CategoricalDistribution(tuple(sorted({16, 32, 64} | {options["lora_alpha"]})))
    return space


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """The options of one trial."""
    suggested: dict[str, Any] = {}
    for name, one in space.items():
        if isinstance(one, FloatDistribution):
            suggested[name] = trial.suggest_float(name, one.low, one.high, log=one.log, step=one.step)
        elif isinstance(one, IntDistribution):
            suggested[name] = trial.suggest_int(name, one.low, one.high, log=one.log, step=one.step)
        elif isinstance(one, CategoricalDistribution):
            suggested[name] = trial.suggest_categorical(name, one.choices)
    return suggested


def within(space: Space, usual: RunConfig) -> dict[str, Any] | None:
    """The options of `usual` that the space has; None where one of them lies outside it."""
    options = {name: usual.to_options()[name] for name in space}
    for name, one in space.items():
        value = options[name]
        if isinstance(one, CategoricalDistribution):
            inside = value in one.choices
        else:
            inside = value is not None and bool(one._contains(value))
        if not inside:
            return None
    return options


def _distribution(name: str, described: Any, usual: RunConfig) -> BaseDistribution:
    if name not in TUNABLE:
        near = meant(name, TUNABLE)
        hint = f" (did you mean {near!r}?)" if near else ""
        raise ConfigError(f"{name!r} cannot be searched{hint}; these can: {', '.join(TUNABLE)}")
    if isinstance(described, list):
        values = [_checked(name, value, usual) for value in described]
        if len(set(values)) < 2:
            raise ConfigError(f"{name} needs at least two values to choose from, was {described!r}")
        return CategoricalDistribution(tuple(dict.fromkeys(values)))
    if not isinstance(described, dict) or not {"low", "high"} <= described.keys() <= set(RANGE_KEYS):
        raise ConfigError(f"{name} must be a list of values, or a range {{low: X, high: Y, log: true, step: Z}}, was {described!r}")
    low, high = (_checked(name, described[end], usual) for end in ("low", "high"))
    if not isinstance(low, (int, float)) or isinstance(low, bool):
        raise ConfigError(f"{name} takes no numbers, so it cannot have a range; give a list of values")
    log, step = bool(described.get("log", False)), described.get("step")
    try:
        if isinstance(low, int):
            return IntDistribution(low, high, log=log, step=1 if step is None else int(step))
        return FloatDistribution(low, high, log=log, step=None if step is None else float(step))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {described!r} is no range: {error}") from error


def _checked(name: str, value: Any, usual: RunConfig) -> Any:
    """The value as a run would take it; ConfigError where none would."""
    if value is None:
        raise ConfigError(f"{name}: null is no value to search; name one")
    return usual.replace(**{name: value}).to_options()[name]
