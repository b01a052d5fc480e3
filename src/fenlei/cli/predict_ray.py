"""The part of `fenlei predict` that computes on a Ray cluster."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fenlei.config import Device, TrustConfig

if TYPE_CHECKING:
    from fenlei.inference.bulk import BulkResult

PANEL = "On a Ray cluster (--engine ray)"

Format = Literal["jsonl", "parquet"]
Engine = Annotated[
    Literal["local", "ray"], typer.Option("--engine", help="Where to compute: in this process, or on Ray workers.", rich_help_panel=PANEL)
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Address of the Ray cluster, or `auto`; default: start Ray on this machine.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Ray workers; default: one per GPU, else one per four cores.", rich_help_panel=PANEL, show_default=False
    ),
]
OutFormat = Annotated[
    Format | None,
    typer.Option("--out-format", help="Write --out as a folder of parts, each by its worker.", rich_help_panel=PANEL, show_default=False),
]


def check_ray(engine: str, address: str | None, workers: int | None, out_format: str | None, refused: Mapping[str, object]) -> None:
    """Wrong usage where options of a cluster come without it, or it comes with options that it does not know."""
    if engine == "ray":
        for name, value in refused.items():
            if value:
                raise typer.BadParameter(f"a cluster takes a run and files, not {name}", param_hint="--engine ray")
    elif address is not None or workers is not None or out_format is not None:
        raise typer.BadParameter("--address, --workers and --out-format go with --engine ray", param_hint="--engine")


def predict_on_ray(
    run: str,
    source: str,
    out: str,
    address: str | None,
    workers: int | None,
    out_format: Format | None,
    device: Device,
    trust: TrustConfig,
    int8: bool,
    verify: bool,
    labels: str | None,
    **options: Any,
) -> BulkResult:
    """What was predicted; the rows done are shown meanwhile. `options` are those of predict_distributed."""
    from fenlei.artifact import read_manifest
    from fenlei.cli.display import counting_rows, notes
    from fenlei.cli.predict_model import promised_among, refuse_labels
    from fenlei.cli.trust import tell_what_promises_lack
    from fenlei.data.label_file import given_labels
    from fenlei.data.labelling import Labelling
    from fenlei.data.remote import is_remote
    from fenlei.data.sources import one_file
    from fenlei.inference.distributed import RunToLoad, predict_distributed
    from fenlei.inference.ray_engine import Cluster

    if is_remote(source):
        source = str(one_file(source)[0])
    manifest = {} if labels is None else read_manifest(run)
    given = None if labels is None else given_labels(labels, manifest["labels"], Labelling.from_json(manifest))
    loaded = RunToLoad(run, device, trust, int8, verify, given or {})
    among = None if given is None else list(given)
    if among is not None and not loaded.takes_labels:
        refuse_labels(f"{run}: this run", len(loaded.labels))
    if among is not None and trust.promises:
        among = promised_among(loaded, among)
    tell_what_promises_lack(run, trust, bare=among is None)
    cluster = Cluster(address, workers, use_gpus=loaded.on_gpu)
    with redirect_stdout(sys.stderr), counting_rows("predicting", source) as progress:  # Ray tells of dead workers on standard output
        return predict_distributed(
            loaded, source, out,
            cluster=cluster, part_format=out_format, labels=among,
            progress=progress, announce=lambda note: notes().print(note, style="dim", markup=False),
            **options,
        )  # fmt: skip
