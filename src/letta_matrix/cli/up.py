"""`letta-matrix up`."""

import asyncio
import contextlib
import os
from typing import Annotated

import typer

from letta_matrix.cli.options import DataOption, data_directory

BaseUrlOption = Annotated[
    str, typer.Option(help="An OpenAI-compatible endpoint, with its /v1.", show_default=False)
]
ApiKeyOption = Annotated[
    str,
    typer.Option(
        help="The endpoint's key; in the environment other users cannot read it.",
        envvar="LETTA_MATRIX_MODEL_API_KEY",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str, typer.Option(help="The model for new agents; default: the first.", show_default=False)
]
PortOffsetOption = Annotated[int, typer.Option(help="Added to every port.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up")(up)


def up(
    data: DataOption = None,
    model_base_url: BaseUrlOption = "",
    model_api_key: ApiKeyOption = "",
    model: ModelOption = "",
    port_offset: PortOffsetOption = 0,
) -> None:
    """Run everything on this machine: homeserver, agents, bridge, chat page.

    A provider key in the environment (ANTHROPIC_API_KEY, OPENAI_API_KEY, ...) is used for
    the agents' model; without one a demo model answers. Ctrl-C stops all; starting again
    keeps everything.
    """
    from letta_matrix.stack.agents_home import Wanted
    from letta_matrix.stack.up import Options
    from letta_matrix.stack.up import up as run_up

    options = Options(
        data=data_directory(data),
        port_offset=port_offset,
        wanted=Wanted(model_base_url, model_api_key, model),
    )
    # For all that is written from here on, by the servers too.
    os.umask(0o077)
    asyncio.run(run_up(options, _say))


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone; the servers go on or end well
        print(line, flush=True)
