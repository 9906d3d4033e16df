"""One model's place in the manager: holder of its tenure, or standby that watches for silence."""

import logging
from collections.abc import Callable, Mapping

from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Barrier
from ekko.schemas.errors import CommitUncertain, ConnectionFailed, EkkoError, Fenced, TransactionAborted
from ekko.schemas.signals import AuditEntry
from ekko.streams.log import Cluster, Partition, Reader, read_all, reading
from ekko.streams.manager.automatic import AutomaticRollback
from ekko.streams.manager.barriers import withdrawing
from ekko.streams.manager.handback import command_since
from ekko.streams.manager.history import barrier_in, read_audit
from ekko.streams.manager.progress import region_progress
from ekko.streams.manager.retention import to_forget, to_withdraw
from ekko.streams.manager.rollback import Region
from ekko.streams.manager.settings import ManagerSettings
from ekko.streams.manager.silence import Silence
from ekko.streams.manager.tenure import Tenure
from ekko.streams.manager.trail import UndoneTrail
from ekko.streams.manager.verdicts import Probation

_log = logging.getLogger(__name__)


class ModelManager:
    """Ticks one model: a barrier every epoch interval while it holds the tenure, else takes over after a silence.

    A failure of this model never concerns another: it is logged, and tried again after `retry_s`.

    Args:
        cluster: the central one.
        codec: knows the catalogue's writer schemas.
        model: the declaration, with incarnation.
        catalogue_end: reads the catalogue's end now.
    """

    def __init__(
        self,
        cluster: Cluster,
        codec: Codec,
        model: ModelDeclaration,
        settings: ManagerSettings,
        catalogue_end: Callable[[], int],
    ) -> None:
        self.model = model
        self.tenure: Tenure | None = None
        self.failure: Exception | None = None
        self.silence = Silence(cluster, model.name)
        self._cluster, self._codec, self._settings = cluster, codec, settings
        self._catalogue_end = catalogue_end
        self._probation = Probation(settings.healthy_after_s)
        self._watch: Reader | None = None
        self._automatic: AutomaticRollback | None = None
        self._trail: UndoneTrail | None = None
        self._active_s = 0.0
        self._claimed = False
        self._due_s = 0.0
        self._retry_at_s = 0.0

    def step(self, now_s: float, regions: Mapping[str, Region]) -> bool:
        """Do what is due; returns whether anything was written.

        Args:
            now_s: seconds since 1970.
            regions: every region of the catalogue.
        """
        kept_s = [region.kept_s[self.model.name] for region in regions.values() if self.model.name in region.kept_s]
        self.silence.look(self.barrier_s, kept_s, now_s)
        if now_s < self._retry_at_s:
            return False
        try:
            wrote = self._lead(self.tenure, now_s, regions) if self.tenure is not None else self._stand_by(now_s)
        except Fenced:
            self._step_down(now_s)
        except CommitUncertain as error:
            _log.warning("model %s: %s; taking over from what is committed", self.model.name, error)
            self._drop_tenure()
            self._claimed = True
        except (ConnectionFailed, TransactionAborted, TimeoutError) as error:
            self._pause(error, now_s)
        except EkkoError as error:
            # A fresh look at the log is worth more than this tenure: the next try takes it anew.
            self._claimed = self._claimed or self.tenure is not None
            self._drop_tenure()
            self._pause(error, now_s)
        else:
            self.failure = None
            return wrote
        return False

    @property
    def barrier_s(self) -> float:
        """When the last barrier known was written, seconds since 1970; 0 if none is known."""
        return self._active_s if self.tenure is None else self.tenure.barrier.written_us / 1e6

    @property
    def alarm(self) -> str:
        """Why a person is needed; "" if nobody is."""
        if self.tenure is not None and self.tenure.barrier.serves_pinned:
            return f"state {self.tenure.barrier.pinned} is served in place of live rows"
        return "" if self._automatic is None else self._automatic.alarm

    def barrier_now(self) -> None:
        """Make the next barrier due at the next step."""
        self._due_s = 0.0

    def close(self) -> None:
        """Let go of tenure and reader."""
        self._drop_tenure()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _lead(self, tenure: Tenure, now_s: float, regions: Mapping[str, Region]) -> bool:
        wrote = self._follow_monitor(tenure, now_s, regions)
        self._follow_trail(tenure, regions)
        if now_s >= self._due_s:
            chosen = to_withdraw(tenure.states.values(), tenure.barrier, int(now_s * 1e6))
            state = tenure.write_barrier(self._catalogue_end(), now_s, withdrawing(chosen) if chosen else None)
            tenure.forget(to_forget(tenure.states.values(), int(now_s * 1e6)))
            self._due_s = now_s + self._settings.epoch_interval_s
            _log.info("model %s: state %d at offsets %s", self.model.name, state.epoch, list(state.offsets))
            wrote = True
        complete = {
            name: region_progress(region.members, self.model, region.incarnation).readable
            for name, region in regions.items()
            if region.members or not region.seeded  # nobody waits for a region that is still being made
        }
        # While a pinned state is served nobody sees the live rows, so no news is no good news.
        watched = [] if tenure.barrier.serves_pinned else tenure.states.values()
        healthy = self._probation.passed(watched, complete, now_s)
        if healthy:
            tenure.write_states(healthy)
            _log.info("model %s: states %s are healthy", self.model.name, [state.epoch for state in healthy])
        return wrote or bool(healthy)

    def _follow_monitor(self, tenure: Tenure, now_s: float, regions: Mapping[str, Region]) -> bool:
        if self._automatic is None:
            limit, audit = self._settings.rollbacks_an_hour, read_audit(self._cluster, self._codec, self.model)
            self._automatic = AutomaticRollback(self._cluster, self._codec, self.model, limit, audit)
            self._trail = UndoneTrail(self.model, audit)
        acted = self._automatic.step(tenure, regions, self._catalogue_end, now_s)
        if acted:
            self._due_s = now_s + self._settings.epoch_interval_s
        return acted

    def _follow_trail(self, tenure: Tenure, regions: Mapping[str, Region]) -> None:
        entries = self._trail.new(regions) if self._trail is not None else []
        if self._trail is not None and entries:
            tenure.write_audit(entries)
            self._trail.written(entries)

    def _stand_by(self, now_s: float) -> bool:
        if not self._claimed:
            self._listen(now_s)
            if now_s < self._active_s + self._settings.takeover_after_s:
                return False
        self.tenure = Tenure(self._cluster, self._codec, self.model, now_s)
        self._due_s = self.tenure.barrier.written_us / 1e6 + self._settings.epoch_interval_s
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._claimed = False
        _log.info("model %s: took over at epoch %d", self.model.name, self.tenure.barrier.epoch)
        return True

    def _listen(self, now_s: float) -> None:
        """Note when the present holder last showed itself.

        The first look trusts the clock of whoever wrote the last barrier; from then on only our own counts.
        """
        partition = Partition(topics.control(self.model.name), 0)
        if self._watch is None:
            position = self._cluster.bounds([partition])[partition].low
            for record in read_all(self._cluster, partition.topic):
                position = record.offset + 1
                barrier = barrier_in(self._codec, self.model, record)
                if barrier is not None:
                    self._active_s = max(self._active_s, min(barrier.written_us / 1e6, now_s))
            self._watch = reading(self._cluster, {partition: position})
        if any(barrier_in(self._codec, self.model, record) for record in self._watch.poll(0.0)):
            self._active_s = now_s

    def _step_down(self, now_s: float) -> None:
        """Stand by for whoever took over; a command is gone already, and the tenure is nobody's."""
        command = self._command_since(self.tenure.barrier) if self.tenure is not None else None
        self._drop_tenure()
        self._active_s = now_s
        self._claimed = command is not None
        if command is not None:
            _log.info("model %s: %s by %s; going on", self.model.name, command.action, command.actor)
        else:
            _log.warning("model %s: another manager took over; standing by", self.model.name)

    def _command_since(self, known: Barrier) -> AuditEntry | None:
        try:
            return command_since(self._cluster, self._codec, self.model, known)
        except EkkoError as error:
            _log.warning("model %s: who took over is not known: %s", self.model.name, error)
            return None

    def _drop_tenure(self) -> None:
        if self.tenure is not None:
            self.tenure.close()
            self.tenure = None
        if self._automatic is not None:
            self._automatic.close()
            self._automatic = None

    def _pause(self, error: Exception, now_s: float) -> None:
        if self.failure is None or str(self.failure) != str(error):
            _log.error("model %s: %s", self.model.name, error)
        self.failure = error
        self._retry_at_s = now_s + self._settings.retry_s
