"""A replica's consumer groups, one a model: lag tools see where it stands, and a reset by others is not overlooked."""

from collections.abc import Iterable
from pathlib import Path

from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.errors import ConfigurationError
from ekko.schemas.replicas import ReplicaState
from ekko.streams.groups import GroupCommits, reset_by_others
from ekko.streams.log import Cluster, Partition
from ekko.streams.replica.model_runner import ModelRunner

_ASK_TIMEOUT_S = 5.0


def lane_places(state: ReplicaState, region: str) -> dict[Partition, int]:
    """The next offset to read of every lane partition of the shards owned."""
    return {
        Partition(topics.lane(state.model, region, lane), shard): place.offset
        for shard, position in state.shards.items()
        for lane, place in ((Lane.EXPRESS, position.express), (Lane.BULK, position.bulk))
    }


class StoreGroups:
    """The groups of one replica.

    Args:
        cluster: the region's. data: the replica's folder, for what is told.
    """

    def __init__(self, cluster: Cluster, region: RegionDeclaration, replica: str, data: Path) -> None:
        self._cluster, self._region, self._replica, self._data = cluster, region, replica, data
        self._commits = GroupCommits(cluster)

    def name(self, model: ModelDeclaration) -> str:
        """The group of a model."""
        region = self._region
        assert model.incarnation is not None
        assert region.incarnation is not None
        return topics.store_group(model.name, model.incarnation, region.name, region.incarnation, self._replica)

    def refuse_reset(self, model: ModelDeclaration, state: ReplicaState) -> None:
        """Look whether somebody has reset the group's offsets while this replica was down.

        Args:
            state: where the store stands by itself.

        Raises:
            ConfigurationError: somebody has; what does it safely is told.
            ConnectionFailed: no coordinator answers.
        """
        own = lane_places(state, self._region.name)
        group = self._cluster.group(self.name(model))
        try:
            reset = reset_by_others(group.committed(own, _ASK_TIMEOUT_S))
        finally:
            group.close()
        if not reset:
            return
        told = ", ".join(
            f"{at.topic}[{at.number}] to {offset} (the store stands at {own[at]})"
            for at, offset in sorted(reset.items())
        )
        command = f"ekko rewind {model.name} --region {self._region.name} --data {self._data} --replica {self._replica}"
        raise ConfigurationError(
            f"somebody has reset offsets of consumer group {self.name(model)}: {told}; a store's rows belong to its "
            "own positions, so that alone would make them wrong, and nothing was changed",
            hint=f"`{command} --to-group` shows how to go back to there safely (--execute does it), "
            f"`{command} --to-store` forgets the reset",
        )

    def step(self, runners: Iterable[ModelRunner]) -> None:
        """Commit where each model stands, every few seconds; never waits."""
        if self._commits.due():
            self._commits.step(
                {
                    self.name(runner.model): lane_places(runner.applier.state, self._region.name)
                    for runner in runners
                    if runner.applier is not None
                }
            )

    def close(self) -> None:
        """Leave the groups."""
        self._commits.close()
