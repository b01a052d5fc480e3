"""The configurations in examples/, read by accelerate's own parser into what its launcher would tell the processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from fenlei.training.ranks import is_one_of_many
from fenlei.training.spread import check_launch, spread_by
from fenlei.training.zero import check_configuration

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("name", "spreads"), [("ddp", None), ("fsdp", "FSDP"), ("zero2", "DEEPSPEED"), ("zero3", "DEEPSPEED")])
def test_a_shipped_configuration_launches_what_it_says(name: str, spreads: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ROOT / "examples" / f"accelerate_{name}.yaml"
    args = launch_command_parser().parse_args(["--config_file", str(file), "-m", "fenlei", "train", "news.jsonl"])
    args, defaults, _ = _validate_launch_command(args)
    assert args.num_processes == 4
    if defaults.distributed_type == "DEEPSPEED":
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        _, environment = prepare_deepspeed_cmd_env(args)
    else:
        environment = prepare_multi_gpu_env(args)
    for key, value in environment.items():
        if key.startswith(("ACCELERATE_", "FSDP_")):
            monkeypatch.setenv(key, value)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert is_one_of_many()
    assert spread_by() == spreads
    check_launch()
    if spreads == "FSDP":
        plugin = FullyShardedDataParallelPlugin()
        assert plugin.fsdp_version == 2
        assert plugin.reshard_after_forward is True
        assert plugin.auto_wrap_policy is not None
    if spreads == "DEEPSPEED":
        monkeypatch.chdir(ROOT)  # the path in it is from the repository
        monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
        check_configuration("head")
        given = json.loads(Path(args.deepspeed_config_file).read_text())
        assert given["zero_optimization"]["stage"] == int(name[-1])
        kept = {"zero_optimization", "gradient_clipping", "gradient_accumulation_steps"}
        assert set(given) == kept | {"train_batch_size", "train_micro_batch_size_per_gpu"}
