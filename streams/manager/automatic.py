"""Carrying out the policy: proposals of the monitor in, verdicts, rollbacks and calls for a person out."""

import logging
from collections.abc import Callable, Iterable, Mapping

from ekko.schemas import topics
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Verdict
from ekko.schemas.errors import FormatError
from ekko.schemas.signals import AuditEntry, Signal
from ekko.streams.health.proposals import Proposal, from_signal
from ekko.streams.log import Cluster, Partition
from ekko.streams.manager.barriers import pinning, rolling_back
from ekko.streams.manager.history import Decoder
from ekko.streams.manager.policy import Alarm, RollBack, ServePinned, answer, suspected
from ekko.streams.manager.rollback import Region, obstacles
from ekko.streams.manager.tenure import Tenure

_log = logging.getLogger(__name__)

ACTOR = "state manager"


class ProposalReader:
    """Reads a model's signals from now on, and keeps the monitor's last proposal."""

    def __init__(self, cluster: Cluster, codec: Decoder, model: ModelDeclaration) -> None:
        self._codec = codec
        partition = Partition(topics.signals(model.name), 0)
        self._reader = cluster.reader()
        self._reader.assign({partition: cluster.bounds([partition])[partition].end})

    def poll(self) -> Proposal | None:
        """The newest proposal that came since the last call."""
        newest: Proposal | None = None
        for record in self._reader.poll(0.0):
            try:
                message = self._codec.decode(record.value)
            except FormatError:
                continue  # the monitor counts and reports it
            if isinstance(message, Signal):
                newest = from_signal(message) or newest
        return newest

    def close(self) -> None:
        """Release the connection."""
        self._reader.close()


class AutomaticRollback:
    """Follows the proposals about one model for as long as its tenure is held.

    Args:
        limit: automatic rollbacks that an hour may have.
        audit: the trail so far: what a predecessor has done counts, too.

    Attributes:
        alarm: why a person was called; "" if nobody was, or the model is well again.
    """

    def __init__(
        self, cluster: Cluster, codec: Decoder, model: ModelDeclaration, limit: int, audit: Iterable[AuditEntry]
    ) -> None:
        self._model, self._limit = model, limit
        self.alarm = ""
        self._rollbacks_us = [entry.at_us for entry in audit if (entry.action, entry.actor) == ("rollback", ACTOR)]
        self._proposals = ProposalReader(cluster, codec, model)

    def step(
        self, tenure: Tenure, regions: Mapping[str, Region], catalogue_end: Callable[[], int], now_s: float
    ) -> bool:
        """Take in what the monitor proposes; returns whether a barrier was written. Raises as `Tenure`.

        Nothing automatic is ever forced: a region of which no replica can go back so far is a reason for an alarm.
        While a pinned state is served in place of the live rows, what the monitor sees says nothing about these.
        """
        proposal = self._proposals.poll()
        if proposal is None or tenure.barrier.serves_pinned:
            return False
        if proposal.verdict is Verdict.HEALTHY:
            self.alarm = ""
        now_us = int(now_s * 1e6)
        tenure.write_states(suspected(list(tenure.states.values()), proposal, now_us))
        action = answer(proposal, tenure.barrier, tenure.states, self._rollbacks_us, now_us=now_us, limit=self._limit)
        if action is None:
            return False
        found = () if isinstance(action, Alarm) else obstacles(self._model, regions, action.state)
        if isinstance(action, Alarm) or found:
            self._call_a_person(action.why if isinstance(action, Alarm) else "; ".join(found))
            return False
        if isinstance(action, RollBack):
            self._roll_back(tenure, action.state, proposal, catalogue_end(), now_s)
        else:
            self._serve_pinned(tenure, action, catalogue_end(), now_s)
        return True

    def close(self) -> None:
        """Release the connection."""
        self._proposals.close()

    def _roll_back(self, tenure: Tenure, to: int, proposal: Proposal, catalogue_end: int, now_s: float) -> None:
        now_us = int(now_s * 1e6)
        details = {"to": str(to), "since_us": str(proposal.since_us)}
        entry = AuditEntry(self._model.name, "rollback", ACTOR, proposal.reason, now_us, details)
        before = tenure.barrier
        try:
            state = tenure.write_barrier(catalogue_end, now_s, rolling_back(to), entry)
        finally:
            # One that was aborted is none. One whose fate is unknown ends the tenure; the next one reads the trail.
            if tenure.barrier is not before:
                self._rollbacks_us.append(now_us)
        _log.critical(
            "model %s rolled back to state %d by barrier %d: %s", self._model.name, to, state.epoch, entry.reason
        )

    def _serve_pinned(self, tenure: Tenure, action: ServePinned, catalogue_end: int, now_s: float) -> None:
        details = {"state": str(action.state)}
        entry = AuditEntry(self._model.name, "serve pinned", ACTOR, action.why, int(now_s * 1e6), details)
        tenure.write_barrier(catalogue_end, now_s, pinning(action.state, serve=True), entry)
        self._call_a_person(f"state {action.state} is served in place of its live rows: {action.why}")

    def _call_a_person(self, why: str) -> None:
        if why != self.alarm:
            self.alarm = why
            _log.critical("model %s is corrupt and needs a person: %s", self._model.name, why)
