"""What the shared servers are taken for and no other test would notice."""

import aiohttp
from tests.servers import Homeserver, LettaServer
from tests.stub_model import MODEL_ID


async def test_a_one_time_token_logs_in_once(
    homeserver: Homeserver, http: aiohttp.ClientSession
) -> None:
    user_id, _, password = await homeserver.register("servers_once")
    synapse = homeserver.synapse
    access = await synapse.login(http, "servers_once", password, "SHORT")
    token = await synapse.one_time_login_token(http, access)
    await synapse.logout(http, access)
    url = f"{homeserver.url}/_matrix/client/v3/login"
    body = {"type": "m.login.token", "token": token}
    async with http.post(url, json=body) as response:
        assert (await response.json())["user_id"] == user_id
    async with http.post(url, json=body) as response:
        assert response.status == 403


async def test_the_app_server_thinks_with_the_stub_alone(app_server: LettaServer) -> None:
    async with app_server.app_server.control(app_server.http) as control:
        models = await control.request("list_models")
    assert [entry["handle"] for entry in models["entries"]] == [f"openai-compatible/{MODEL_ID}"]
