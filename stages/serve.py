"""Run to a server that many clients use at once."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lib.errors import MakegptError, UsageError
from stages.shared.command import Stage
from stages.shared.options import device_option
from stages.shared.stopping import parse_duration
from stages.shared.streams import forward_log, say
from stages.shared.weights import Weights, weights_option

if TYPE_CHECKING:
    from lib.serve.models import ServedModels

_API_KEY = "MAKEGPT_API_KEY"


@click.command("serve", cls=Stage)
@click.argument("folders", type=click.Path(path_type=Path), metavar="RUN...", nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for other machines too.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port to listen on; 0 for a free one."
)
@click.option(
    "--api-key",
    metavar="KEY",
    help=f"Answer only requests with this key; ${_API_KEY} keeps it out of the list of processes.",
)
@click.option("--allow-host", "names", multiple=True, metavar="NAME", help="A name of this server; may be repeated.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Texts continued at one time.")
@click.option("--queue", type=click.IntRange(1), default=64, show_default=True, help="Requests that wait; others get 503.")
@click.option("--max-tokens", type=click.IntRange(1), default=4096, show_default=True, help="New tokens of a text at most.")
@click.option(
    "--timeout",
    callback=parse_duration,
    default="10m",
    show_default=True,
    metavar="DURATION",
    help="Time of a request at most.",
)
@click.option(
    "--stop-timeout",
    callback=parse_duration,
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="Time for what runs when the server is stopped.",
)
@weights_option
@device_option
def main(
    folders: tuple[Path, ...],
    host: str,
    port: int,
    api_key: str | None,
    names: tuple[str, ...],
    batch_size: int,
    queue: int,
    max_tokens: int,
    timeout: float,
    stop_timeout: float,
    weights: Weights,
    device_name: str,
) -> None:
    """Serve the models in the run folders RUN... over HTTP, with OpenAI's API and a page for the browser.

    The name of a model is that of its folder. SIGTERM and Ctrl-C finish what runs, then exit with 0; a second one ends at once.
    """
    # large pages for the weights, which are read faster; torch reads this at its first allocation
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        from lib.serve.limits import Limits
        from lib.serve.models import load_models, names_of
        from lib.serve.safety import Access, is_loopback
        from lib.serve.server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise MakegptError(f"`serve` needs {error.name}; run `make setup`, or pip install 'makegpt[serve]'") from None

    api_key = api_key or os.environ.get(_API_KEY) or None
    if api_key is not None and not all("!" <= character <= "~" for character in api_key):
        raise UsageError("the API key must be visible ASCII characters without spaces, as a header can carry them")
    if not is_loopback(host):
        if api_key is None:
            raise UsageError(
                f"--host {host} lets other machines use this server; give an --api-key, or set ${_API_KEY}, or leave --host"
            )
        say(f"warning: other machines can reach this server; the key and all texts travel to {host} unencrypted")
    names_of(folders)

    def ready(address: str, models: "ServedModels") -> None:
        for model in models:
            if notice := model.model.kernel_notice():
                say(notice)
        say(f"serving {', '.join(model.name for model in models)} on {address}")

    forward_log("lib.serve")
    serve(
        lambda: load_models(folders, weights=weights.format, checkpoint=weights.saved, device=device_name),
        host,
        port,
        limits=Limits(batch_size=batch_size, queue=queue, tokens=max_tokens, timeout=timeout),
        access=Access(host, names, api_key),
        stop_seconds=stop_timeout,
        on_ready=ready,
        on_stop=say,
    )


if __name__ == "__main__":
    main()
