"""Somebody of the server makes a room that looks like an agent's; people get into it only by
accepting the invitation themselves."""

from tests.integration.people import Person
from tests.servers import Homeserver
from tests.waiting import eventually

NAME = "Newton - Letta Agent Chat"


def ghost(homeserver: Homeserver, user_id: str) -> Person:
    return Person(homeserver.http, homeserver.url, user_id, homeserver.as_token, as_user=user_id)


async def test_nobody_is_pulled_into_a_room_that_imitates_an_agents(
    homeserver: Homeserver, ann: Person, bob: Person
) -> None:
    bot = ghost(homeserver, homeserver.config.bot_user_id)
    agent = ghost(homeserver, "@agent_newton:localhost")
    account = {"type": "m.login.application_service", "username": "agent_newton"}
    await Person(homeserver.http, homeserver.url, "", homeserver.as_token).call(
        "POST", "/register", account
    )
    false = await bob.create_room(ann.user_id, name=NAME)
    # Invitations are accepted in their order: this one is when the other would have been.
    # Whoever may talk to an agent can have it make a room.
    asked = await agent.create_room(ann.user_id, name=NAME)
    for one, alias in ((bot, "agent_newton_of_the_bot"), (agent, "agent_newton")):
        true = await one.create_room(ann.user_id, name=NAME, room_alias_name=alias)

        async def joined(one: Person = one, true: str = true) -> bool:
            return (await one.members(true))[ann.user_id] == "join"

        await eventually(joined)
    assert (await bob.members(false))[ann.user_id] == "invite"
    assert (await agent.members(asked))[ann.user_id] == "invite"
    status, _ = await ann.call("POST", f"/rooms/{false}/join")
    assert status == 200
