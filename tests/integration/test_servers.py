"""The shared servers are what the other tests take them for."""

import aiohttp
from tests.servers import Homeserver, LettaServer
from tests.stub_model import MODEL_ID


async def test_people_can_log_in(homeserver: Homeserver, http: aiohttp.ClientSession) -> None:
    user_id, token, _ = await homeserver.register("servers_person")
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{homeserver.url}/_matrix/client/v3/account/whoami"
    async with http.get(url, headers=headers) as response:
        assert (await response.json())["user_id"] == user_id


async def test_the_application_service_is_registered(
    homeserver: Homeserver, http: aiohttp.ClientSession
) -> None:
    body = {"type": "m.login.application_service", "username": "agent_servers"}
    headers = {"Authorization": f"Bearer {homeserver.as_token}"}
    url = f"{homeserver.url}/_matrix/client/v3/register"
    async with http.post(url, json={**body, "inhibit_login": True}, headers=headers) as response:
        assert response.status == 200
        assert (await response.json())["user_id"] == f"@agent_servers:{homeserver.server_name}"


async def test_people_join_the_rooms_they_are_invited_to(
    homeserver: Homeserver, http: aiohttp.ClientSession
) -> None:
    invited, token, _ = await homeserver.register("servers_invited")
    headers = {"Authorization": f"Bearer {homeserver.admin_token}"}
    base = f"{homeserver.url}/_matrix/client/v3"
    async with http.post(f"{base}/createRoom", json={"invite": [invited]}, headers=headers) as made:
        room_id = (await made.json())["room_id"]
    for _ in range(100):
        headers = {"Authorization": f"Bearer {token}"}
        async with http.get(f"{base}/joined_rooms", headers=headers) as response:
            if room_id in (await response.json())["joined_rooms"]:
                return
    raise AssertionError("not joined")


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


async def test_the_homeserver_comes_back(homeserver: Homeserver) -> None:
    homeserver.kill()
    await homeserver.restart()
    assert await homeserver.synapse.ready(homeserver.http)


async def test_the_app_server_thinks_with_the_stub(app_server: LettaServer) -> None:
    async with app_server.app_server.control(app_server.http) as control:
        models = await control.request("list_models")
        assert [entry["handle"] for entry in models["entries"]] == [f"openai-compatible/{MODEL_ID}"]
    app_server.kill()
    await app_server.restart()
    async with app_server.app_server.control(app_server.http) as control:
        assert isinstance((await control.request("agent_list", query={"limit": 1}))["agents"], list)
