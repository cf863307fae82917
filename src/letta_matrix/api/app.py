"""The REST API as an ASGI application."""

from fastapi import FastAPI

from letta_matrix import __version__
from letta_matrix.api import problems
from letta_matrix.api.services import Services


def make_app(services: Services) -> FastAPI:
    """The application; `/health`, `/ready`, `/chat` and `/` are served before it."""
    app = FastAPI(title="letta-matrix", version=__version__, docs_url="/docs", redoc_url=None)
    app.state.services = services
    problems.install(app)
    return app
