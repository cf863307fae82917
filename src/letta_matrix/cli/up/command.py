"""`letta-matrix up`."""

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated

import typer

from letta_matrix.cli.faults import BadInput
from letta_matrix.cli.options import DataOption, data_directory, warn
from letta_matrix.cli.secrets import is_typed, secret_in, without_password

_KEY = "LETTA_MATRIX_MODEL_API_KEY"
_KEY_PLACES = f"--model-api-key-file or the variable {_KEY}"


def up(
    context: typer.Context,
    data: DataOption = None,
    model_base_url: Annotated[
        str, typer.Option(help="An OpenAI-compatible endpoint, with its /v1.", show_default=False)
    ] = "",
    model_api_key: Annotated[
        str,
        typer.Option(
            help="The endpoint's key. Here other users can read it: better in a file, or in the "
            "environment.",
            envvar=_KEY,
            show_default=False,
        ),
    ] = "",
    model_api_key_file: Annotated[
        Path | None, typer.Option(help="A file with the endpoint's key.", show_default=False)
    ] = None,
    model: Annotated[
        str, typer.Option(help="The model for new agents; default: the first.", show_default=False)
    ] = "",
    port_offset: Annotated[int, typer.Option(help="Added to every port.")] = 0,
) -> None:
    """Run everything on this machine: homeserver, agents, bridge, chat page.

    A provider key in the environment (ANTHROPIC_API_KEY, OPENAI_API_KEY, ...) is used for
    the agents' model; without one a demo model answers. Ctrl-C stops all; starting again
    keeps everything.
    """
    from letta_matrix.cli.backup.unfinished import check_whole
    from letta_matrix.cli.up.stack import Options
    from letta_matrix.cli.up.stack import up as run_up
    from letta_matrix.stack.models import Wanted

    if is_typed(context, "model_api_key"):
        warn(f"--model-api-key on the command line is seen by every user (`ps`); use {_KEY_PLACES}")
    base_url = without_password(model_base_url, f"use {_KEY_PLACES}")
    wanted = Wanted(base_url, _key(context, model_api_key, model_api_key_file), model)
    directory = data_directory(data)
    check_whole(directory / "config.yaml")
    options = Options(data=directory, port_offset=port_offset, wanted=wanted)
    asyncio.run(run_up(options, _say))


def _key(context: typer.Context, given: str, file: Path | None) -> str:
    """What was typed goes before the environment. Raises BadInput."""
    if file is None:
        return given
    if is_typed(context, "model_api_key"):
        raise BadInput("--model-api-key and --model-api-key-file: give one of them")
    return secret_in(file)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone; the servers go on or end well
        print(line, flush=True)
