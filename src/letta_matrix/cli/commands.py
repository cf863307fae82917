"""The commands that `letta-matrix` has. Each imports what it needs when it runs."""

import typer

from letta_matrix.cli import (
    chat,
    forget,
    import_mappings,
    init,
    keeper,
    link,
    mappings,
    mcp,
    moving,
    overview,
    rotate,
    run,
    sms,
    tokens,
    version,
)
from letta_matrix.cli.backup import command as backup
from letta_matrix.cli.doctor import command as doctor
from letta_matrix.cli.up import command as up

app = typer.Typer(
    name="letta-matrix",
    help="Gives every Letta agent a life of its own on Matrix.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(version.options)
for name, run_it in {
    "up": up.up,
    "run": run.run,
    "init": init.init,
    "chat": chat.chat,
    "link": link.link,
    "agents": overview.agents,
    "status": overview.status,
    "doctor": doctor.doctor,
    "export-mappings": mappings.export_mappings,
    "import-mappings": import_mappings.import_mappings,
    "forget": forget.forget,
    "backup": backup.backup,
    "restore": backup.restore,
    "rotate-tokens": rotate.rotate_tokens,
    "mcp": mcp.mcp,
    "keeper": keeper.keeper,
}.items():
    app.command(name)(run_it)
app.add_typer(tokens.commands, name="tokens")
app.add_typer(sms.commands, name="sms")
app.add_typer(moving.commands, name="database")
