"""What anybody may ask: what this is, and how it is.

The pages answer these before the API is loaded; here they stand for the OpenAPI document, and for
whoever serves the API alone.
"""

from fastapi import APIRouter, Response

from letta_matrix.doors.rest.compat_models import CompatHealth, CompatReady, CompatService
from letta_matrix.doors.rest.problems import may
from letta_matrix.doors.rest.security import Api
from letta_matrix.doors.web.health import told
from letta_matrix.doors.web.pages import SERVICE

router = APIRouter(tags=["bridge"], responses=may("failed"))


@router.get("/")
async def service() -> CompatService:
    """Tell what this is. Browsers are led to the chat page instead."""
    return CompatService.model_validate(SERVICE)


@router.get("/health")
async def bridge_health(api: Api) -> CompatHealth:
    """Tell how the bridge is, without a token."""
    return CompatHealth.model_validate(told(api.health()))


@router.get("/ready", responses={503: {"model": CompatReady, "description": "Not yet"}})
async def ready(api: Api, response: Response) -> CompatReady:
    """Tell whether all is set up, without a token: with the status 503 as long as it is not."""
    done = bool(api.health()["ready"])
    response.status_code = 200 if done else 503
    return CompatReady(ready=done)
