"""Every metric of the bridge. They are read when somebody asks, from the parts that know."""

import platform
from collections import Counter
from collections.abc import Callable

from letta_matrix import __version__
from letta_matrix.app.assembly import App
from letta_matrix.app.metric import PREFIX, Figure, Histogram, Metric, Values, by, one
from letta_matrix.common.measures import Spans
from letta_matrix.common.parts import part
from letta_matrix.common.vitals import State
from letta_matrix.matrix.appservice import Appservice
from letta_matrix.store.turns import Outcome

_OUTCOMES = [str(outcome) for outcome in Outcome]
_STATES = {State.OK: 0, State.WARNING: 1, State.TROUBLE: 2}


@part
class Metrics:
    """All metrics; `is_ready` as `/ready` tells it."""

    _app: App
    _appservice: Appservice
    _is_ready: Callable[[], bool]

    def all(self) -> list[Metric]:
        """Every one, as the documentation lists them."""
        return [
            *self._bridge(),
            *self._turns(),
            *self._agents(),
            *self._homeserver(),
            *self._runtimes(),
            *self._database(),
            *self._portals(),
        ]

    def _bridge(self) -> list[Metric]:
        built, seat = (__version__, platform.python_version()), self._app.seat
        return [
            _figure("build_info", "Always 1.", lambda: {built: 1}, "version", "python"),
            _figure("ready", "1 as long as /ready answers 200.", lambda: one(self._is_ready())),
            _figure(
                "check_state",
                "A check of /health: 0 ok, 1 warning, 2 trouble.",
                lambda: by({it.name: _STATES[it.state] for it in self._app.vitals.checks()}),
                "check",
            ),
            _figure(
                "transactions_total",
                "Transactions of the homeserver.",
                lambda: by(self._counted("transactions", {"": "stored"}), "stored", "refused"),
                "result",
            ),
            _figure(
                "replicas",
                "Bridges on one PostgreSQL by what each does; nothing without replicas.",
                lambda: by(Counter(it.state for it in seat.replicas) if seat else {}),
                "state",
            ),
            _figure(
                "lease_epoch",
                "The how manieth replica it is that acts; 0 without replicas.",
                lambda: one(seat.epoch if seat else 0),
            ),
            _figure(
                "events_total",
                "Events that the homeserver pushed, by what became of them.",
                lambda: by(self._counted("events")),
                "result",
            ),
        ]

    def _turns(self) -> list[Metric]:
        queues = self._app.dispatcher.queues
        journeys, inbox = queues.journeys, self._app.stores.inbox
        return [
            _spans(
                "turn_stage_seconds",
                "From a message's last stage to this one: admitted (stored), asked (its runtime "
                "was given it), first_text (came from there), final (all is said).",
                lambda: [journeys.stages],
                "stage",
            ),
            _spans(
                "turn_seconds",
                "From a message's arrival until all is said.",
                lambda: [journeys.whole],
            ),
            _figure(
                "turns_total",
                "Messages to agents that came to an end.",
                lambda: by(journeys.outcomes, *_OUTCOMES),
                "outcome",
            ),
            _figure(
                "turns_refused_total",
                "Messages beyond somebody's budget.",
                lambda: one(inbox.refused),
            ),
            _figure(
                "turns_given_up_total",
                "Turns that failed again and again.",
                lambda: one(self._app.dispatcher.counters["turns_given_up"]),
            ),
            _figure(
                "turns_unfinished", "Turns that run or wait.", self._unfinished, "kind", "status"
            ),
            _figure(
                "turns_oldest_seconds",
                "How long ago the oldest of these was sent that does not wait for an approval; 0 "
                "for none.",
                self._oldest,
            ),
            _figure(
                "approvals_waiting",
                "Questions whether a tool may run that nobody has answered.",
                lambda: one(self._app.stores.approvals.waiting),
            ),
        ]

    def _agents(self) -> list[Metric]:
        app = self._app
        return [
            _figure(
                "agents",
                "Agents.",
                lambda: by(Counter(str(it.status) for it in app.stores.directory.all())),
                "status",
            ),
            _figure(
                "agents_in_trouble",
                "Agents that cannot be set up, are not in their rooms, or are mute there.",
                lambda: one(len(app.troubles.all())),
            ),
            _figure(
                "models_failing",
                "Agents whose model failed last, in the last quarter of an hour.",
                lambda: one(len(app.turn_runner.models.failing)),
            ),
            _figure(
                "model_failures_total",
                "How often a model failed, asked again or not.",
                lambda: one(app.turn_runner.models.failures),
            ),
        ]

    def _homeserver(self) -> list[Metric]:
        homeserver = self._app.homeserver
        edits = homeserver.pacer.edits
        return [
            _spans(
                "homeserver_request_seconds",
                "Requests to the homeserver, each try by itself.",
                lambda: [homeserver.calls.spans],
                "kind",
            ),
            _figure(
                "homeserver_faults_total",
                "Tries that came to nothing: limited (429), refused (4xx), failed (5xx), foreign "
                "(somebody else answered), unreachable.",
                lambda: dict(homeserver.calls.faults),
                "kind",
                "fault",
            ),
            _figure(
                "homeserver_requests_stuck",
                "Requests that have failed for 30 s or longer.",
                lambda: one(homeserver.retries.stuck),
            ),
            _figure(
                "edits_total",
                "Interim edits: sent, lost (not taken; the next says more), put_off (waited for a "
                "place in their budget; what was written meanwhile came along).",
                lambda: by(edits, "sent", "lost", "put_off"),
                "result",
            ),
        ]

    def _runtimes(self) -> list[Metric]:
        app = self._app
        calls = [*(it.calls for it in app.listings.discoveries), app.turn_runner.calls]
        return [
            _spans(
                "runtime_listing_seconds",
                "Listings of a runtime's agents.",
                lambda: [it.spans for it in calls[:-1]],
                "runtime",
            ),
            _spans(
                "runtime_turn_seconds",
                "Tries to have a turn answered, to the end, with all that it waits for.",
                lambda: [calls[-1].spans],
                "runtime",
            ),
            _figure(
                "runtime_faults_total",
                "Listings and turns that failed there, by what was wrong.",
                lambda: dict(sum((it.faults for it in calls), Counter[tuple[str, ...]]())),
                "runtime",
                "fault",
            ),
            _figure(
                "runtime_oddities_total",
                "What came unknown or malformed and was passed over; GET /api/v1/stats has kinds.",
                lambda: by({it.name: it.counters.total() for it in app.runtimes.values()}),
                "runtime",
            ),
        ]

    def _database(self) -> list[Metric]:
        database = self._app.stores.database
        return [
            _spans(
                "database_commit_seconds",
                "Commits, with the work in them.",
                lambda: [database.commits.spans],
            ),
            _figure(
                "database_transactions_total",
                "Transactions; those that wait at the same time share a commit.",
                lambda: one(database.commits.transactions),
            ),
            _figure(
                "database_faults_total",
                "How often it could not be used.",
                lambda: one(database.faults),
            ),
            _figure("database_bytes", "Size of its files.", lambda: by(database.sizes()), "file"),
        ]

    def _portals(self) -> list[Metric]:
        app = self._app
        return [
            _figure(
                "portals",
                "Talks on other networks.",
                lambda: by(Counter(it.name for it in app.stores.portals.all())),
                "bridge",
            ),
            _figure(
                "portal_failures_total",
                "Texts that a bridge could not bring to its network.",
                lambda: by(app.undelivered.failures, *(it.name for it in app.config.bridges)),
                "bridge",
            ),
        ]

    def _counted(self, about: str, renamed: dict[str, str] | None = None) -> dict[str, float]:
        """The counters about something, by what stands behind that in their names."""
        found: dict[str, float] = {}
        for name, count in (self._app.dispatcher.counters + self._appservice.counters).items():
            if name.partition("_")[0] == about:
                result = name.removeprefix(about).removeprefix("_")
                found[(renamed or {}).get(result, result)] = count
        return found

    def _unfinished(self) -> Values:
        unfinished = self._app.dispatcher.queues.unfinished()
        return Counter((str(turn.kind), str(turn.status)) for turn in unfinished)

    def _oldest(self) -> Values:
        now = self._app.homeserver.clock.now()
        queues, asking = self._app.dispatcher.queues, self._app.stores.approvals.waiting_turns
        unfinished = queues.unfinished()
        # People have another figure for what waits for them; so does what is in a queue behind it.
        held = [turn for turn in unfinished if turn.turn_id in asking]
        apart = asking.union(*({it.turn_id for it in queues.behind(turn)} for turn in held))
        ages = [now - turn.sent_at for turn in unfinished if turn.turn_id not in apart]
        return one(max(ages, default=0.0))


def _figure(name: str, says: str, read: Callable[[], Values], *labels: str) -> Figure:
    return Figure(PREFIX + name, says, labels, read)


def _spans(name: str, says: str, read: Callable[[], list[Spans]], *labels: str) -> Histogram:
    return Histogram(PREFIX + name, says, labels, read)
