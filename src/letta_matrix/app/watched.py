"""What each check of the bridge's health watches, for people who meet its name."""

from collections.abc import Mapping

WATCHED: Mapping[str, str] = {
    "homeserver": "the bridge is connected to the homeserver, which answers",
    "homeserver address": "it is the homeserver that listens at its address, not another program",
    "requests": "requests to the homeserver get through",
    "database": "the bridge's database can be written",
    "replicas": "the bridges that stand by for each other are fit to take over",
    "missed messages": "messages of the time while the bridge was away can all be found",
    "what is remembered": "rooms and accounts are still there on the homeserver",
    "space": "the space with all agents' rooms can be kept",
    "clock": "this machine's clock and the homeserver's agree",
    "runtimes": "there is a place where agents live",
    "models": "agents' models answer",
    "encryption": "agents can read their own rooms, which are not encrypted",
    "accounts": "nobody else has an account with a user id of the bridge's",
    "signed in": "nobody else is signed in to an account of the bridge's",
    "decoration": "names, pictures and the like of agents and rooms are taken by the homeserver",
    "agents": "every agent has its user and its room",
    "portals": "who is meant in talks on other networks is plain",
    "texts": "what agents say on other networks goes out",
    "phone line": "the phone that sends text messages is paired and connected",
    "numbers": "the phone's bridge tells whose number a talk is with",
    "encrypted portals": "talks on other networks can be read",
    "turns": "messages can be answered, or refused",
    "connections": "the bridge has room for those who connect to it",
    "reachability": "the homeserver reaches the bridge, and sends it what happens",
    "ping": "the homeserver can tell whether it reaches the bridge",
    "traces": "the collector of traces takes them",
}
_RUNTIME = "runtime "


def watched_by(check: str) -> str:
    """What is so while a check finds nothing wrong; "" for one that is told nowhere."""
    if check.startswith(_RUNTIME):
        return "the agents of this runtime can be listed"
    return WATCHED.get(check, "")
