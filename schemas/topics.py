"""Names of topics and transactional ids: API, so they stand in one place (DESIGN: fixed names)."""

CATALOGUE = "ekko.catalogue"
SHARES = "ekko.shares"


CATALOGUE_TRANSACTIONAL_ID = "ekko.catalogue"
"""Identity that lets one writer at a time change the catalogue."""


def deltas(model: str) -> str:
    """Source log: delta blocks and barriers, one partition a shard."""
    return f"{model}.deltas"


def control(model: str) -> str:
    """Latest control record of a model: generation and voids ahead of the lanes."""
    return f"{model}.control"


def states(model: str) -> str:
    """Model states, keyed by epoch, compacted."""
    return f"{model}.states"


def signals(model: str) -> str:
    """Quality samples, request counts, gradient means, update latencies."""
    return f"{model}.signals"


def audit(model: str) -> str:
    """Who did what to the model, when and why."""
    return f"{model}.audit"


def lane(model: str, region: str, lane_name: str) -> str:
    """A region's lane topic; `lane_name` is 'express' or 'bulk'."""
    return f"{model}.{region}.{lane_name}"


def fanout(model: str, region: str) -> str:
    """Fan-out state a shard, compacted."""
    return f"{model}.{region}.fanout"


def rejected(model: str, region: str) -> str:
    """Source records that the region's fan-out refused."""
    return f"{model}.{region}.rejected"


def members(region: str) -> str:
    """Replicas of a region with their addresses and vectors, compacted."""
    return f"ekko.{region}.members"


def fanouts(region: str) -> str:
    """Instances of a region's fan-out that announce themselves, compacted."""
    return f"ekko.{region}.fanouts"


def fanout_transactional_id(model: str, incarnation: int, region: str, region_incarnation: int, group: int) -> str:
    """Identity that fences the fan-out writers of one shard group."""
    return f"ekko.fanout.{model}@{incarnation}.{region}@{region_incarnation}.{group}"


def manager_transactional_id(model: str, incarnation: int) -> str:
    """Identity that fences the writer of a model's barriers."""
    return f"ekko.manager.{model}@{incarnation}"


def operation_transactional_id(model: str, incarnation: int) -> str:
    """Identity that lets one operation (retract, reinstate, expire, import) at a time touch a model."""
    return f"ekko.operation.{model}@{incarnation}"


def trainer_transactional_id(model: str, incarnation: int, transactional_id: str) -> str:
    """Identity of a trainer that publishes its deltas and its own input position in one transaction."""
    return f"ekko.trainer.{model}@{incarnation}.{transactional_id}"


def store_group(model: str, incarnation: int, region: str, region_incarnation: int, replica: str) -> str:
    """Consumer group to which a replica commits where it stands in a model's lanes, for lag tools."""
    return f"ekko.store.{model}@{incarnation}.{region}@{region_incarnation}.{replica}"


def fanout_group(model: str, incarnation: int, region: str, region_incarnation: int) -> str:
    """Consumer group to which a region's fan-out commits where it stands in a model's source log, for lag tools."""
    return f"ekko.fanout.{model}@{incarnation}.{region}@{region_incarnation}"
