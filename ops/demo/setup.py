"""What must be there before the demo's parts are started one by one, as in docker-compose.yml: model, stream, plan."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from ekko.ops.demo.interactions import Interactions
from ekko.ops.demo.plan import MODEL, STREAM_FILE, DemoPlan, replay_rate
from ekko.ops.demo.status import TRAINER_FILE
from ekko.storage.disk.data_folder import make_folder
from ekko.streams.catalogue.declaring import declare
from ekko.streams.kafka import KafkaCluster


def set_up(
    folder: Path, interactions: Interactions, stores: Mapping[str, str], seconds: float, bootstrap: str
) -> list[str]:
    """Declare the model, and leave stream and plan in ``folder``; returns what was done in words.

    May be repeated: the model stays, and training goes on for ``seconds`` more where the log says it was.
    ``stores`` maps regions to host:port of a store.

    Raises:
        EkkoError: the broker does not answer, or the catalogue holds another model of this name.
    """
    make_folder(folder, "--data")
    plan = DemoPlan(
        folder=folder,
        bootstrap=bootstrap,
        model=MODEL,
        stores=dict(stores),
        monitor_port=0,
        rate=replay_rate(len(interactions), seconds),
        seconds=seconds,
    )
    with closing(KafkaCluster(bootstrap)) as cluster:
        done = declare(cluster, plan.declarations(), lambda _region: cluster)
    interactions.save(folder / STREAM_FILE)
    (folder / TRAINER_FILE).unlink(missing_ok=True)  # it names the end of an earlier training
    plan.write()
    return done
