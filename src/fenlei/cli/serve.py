"""`fenlei serve`: a trained folder behind HTTP."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated, Literal

import typer

from fenlei.cli.trust import MinConfidence, SetByClass, SetCoverage, SetScoreOption, TargetAccuracy, asked, tell_what_promises_lack
from fenlei.cli.verify import Verify
from fenlei.config import Device
from fenlei.serving.keys import Keys
from fenlei.serving.limits import Limits

EXAMPLES = (
    "fenlei serve runs/news",
    "fenlei serve runs/news --host 0.0.0.0 --port 80 --api-key-file keys.txt --workers 2",
    'curl localhost:8000/v1/classify -H "content-type: application/json" -d \'{"texts": ["央行宣布下调存款准备金率"]}\'',
)
LIMITS = "Limits"
USUAL = Limits()


def serve(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run, or a link to it.")],
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(help="Processes, each with a model of its own.")] = 1,
    api_key_file: Annotated[Path | None, typer.Option(help="API keys, one a line; FENLEI_API_KEYS holds more, joined by commas.")] = None,
    cors_origin: Annotated[list[str] | None, typer.Option(help="Origin whose pages may call; may be given again.")] = None,
    served_model_name: Annotated[
        str | None, typer.Option(help="Name that requests and answers call the model by; default: that of the folder.")
    ] = None,
    classify_shape: Annotated[Literal["vllm", "infinity"], typer.Option(help="Whose answer POST /classify gives.")] = "vllm",
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Log every text with its answer.")] = False,
    verify: Verify = False,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    int8: Annotated[
        bool, typer.Option("--int8", help="Compute in 8-bit integers: faster on x86 CPUs, most with VNNI, slightly less exact.")
    ] = False,
    min_confidence: MinConfidence = None,
    target_accuracy: TargetAccuracy = None,
    set_coverage: SetCoverage = None,
    set_score: SetScoreOption = "lac",
    set_by_class: SetByClass = False,
    max_queue: Annotated[int, typer.Option(help="Texts that may wait; more are refused (429).", rich_help_panel=LIMITS)] = USUAL.max_queue,
    max_texts: Annotated[int, typer.Option(help="Most texts in one request; more get 422.", rich_help_panel=LIMITS)] = USUAL.max_texts,
    max_characters: Annotated[
        int, typer.Option(help="Most characters in one text; more get 413.", rich_help_panel=LIMITS)
    ] = USUAL.max_characters,
    max_labels: Annotated[
        int, typer.Option(help="Most labels a request may ask among; more get 422.", rich_help_panel=LIMITS)
    ] = USUAL.max_labels,
    max_body: Annotated[int, typer.Option(help="Most bytes in one request; more get 413.", rich_help_panel=LIMITS)] = USUAL.max_body,
    timeout: Annotated[float, typer.Option(help="Seconds until a request is given up (504).", rich_help_panel=LIMITS)] = USUAL.timeout,
    read_timeout: Annotated[
        float, typer.Option(help="Seconds for a request's body to arrive (408).", rich_help_panel=LIMITS)
    ] = USUAL.read_timeout,
    window: Annotated[
        float, typer.Option(help="Seconds the model waits for more texts to share a pass.", rich_help_panel=LIMITS)
    ] = USUAL.window,
    batch_tokens: Annotated[int | None, typer.Option(help="Tokens a forward pass; default: by the device.", rich_help_panel=LIMITS)] = None,
    drain: Annotated[
        float, typer.Option(help="Seconds that requests in flight get to finish at shutdown.", rich_help_panel=LIMITS)
    ] = USUAL.drain,
) -> None:
    """Answer over HTTP: fenlei's own routes, those of vLLM, infinity, TEI and Hugging Face, and a page for people.

    On SIGTERM the service finishes the requests it has and stops. On SIGHUP it loads the run that is now in the folder and switches to it.
    """
    limits = Limits(
        max_queue=max_queue, max_texts=max_texts, max_characters=max_characters, max_labels=max_labels, max_body=max_body, timeout=timeout,
        read_timeout=read_timeout, window=window, batch_tokens=batch_tokens, drain=drain,
    )  # fmt: skip
    if workers < 1:
        raise typer.BadParameter(f"{workers}: at least one process answers", param_hint="--workers")
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # by default it kills, and the imports below take seconds
    _need_extra()

    from fenlei.serving.life import Settings
    from fenlei.serving.processes import serve as serve_run

    trust = asked(min_confidence, target_accuracy, set_coverage, set_score, set_by_class)
    tell_what_promises_lack(run, trust)
    settings = Settings(
        run,
        host=host,
        port=port,
        device=device,
        int8=int8,
        trust=trust,
        workers=workers,
        keys=Keys.read(api_key_file, os.environ),
        cors_origins=tuple(cors_origin or ()),
        served_model_name=served_model_name,
        classify_shape=classify_shape,
        log_texts=log_texts,
        verify=verify,
        limits=limits,
    )
    raise typer.Exit(serve_run(settings))


def _need_extra() -> None:
    from importlib.util import find_spec

    from fenlei.errors import ConfigError

    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"the service needs {', '.join(missing)}: pip install 'fenlei[serve]'")
