"""The catalogue as a fold over its topic: now, as of any offset, whatever racing writers and strangers put into it."""

import time
from dataclasses import replace

import pytest

from ekko.schemas.codec import encode, own_schemas
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.errors import ConfigurationError, ConnectionFailed, FormatTooNew, GapError, TopicMissing
from ekko.streams.catalogue import PARTITION, Catalogue, mirrored
from ekko.streams.catalogue.topics import catalogue as catalogue_topic
from ekko.streams.log import Output, read_all
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import MemoryCluster

USERS = TableDeclaration("users", dim=16)
ITEMS = TableDeclaration("items", dim=8)
CTR = ModelDeclaration("ctr", shards=4, tables=(USERS,))


@pytest.fixture
def cluster() -> MemoryCluster:
    cluster = MemoryCluster(MemoryBroker(time.monotonic))
    cluster.create_topics([catalogue_topic().spec])
    return cluster


def write(cluster: MemoryCluster, *values: object) -> list[int]:
    """Write declarations (or raw bytes), each as a transaction of its own, as two markers between them show."""
    offsets: list[int] = []
    for value in values:
        raw = value if isinstance(value, bytes) else encode(value)
        offsets += cluster.transactional_writer("test").transact([Output(PARTITION, raw)])
    return offsets


def read(cluster: MemoryCluster) -> Catalogue:
    catalogue = Catalogue(cluster)
    catalogue.refresh()
    return catalogue


def test_a_model_has_the_offset_of_its_first_record_as_incarnation(cluster: MemoryCluster) -> None:
    write(cluster, RegionDeclaration("east"))
    (offset,) = write(cluster, CTR)
    catalogue = read(cluster)
    assert offset == 2
    assert catalogue.model("ctr") == replace(CTR, incarnation=2)
    assert catalogue.region("east").incarnation == 0
    assert catalogue.end == 3


def test_a_name_used_again_is_another_model(cluster: MemoryCluster) -> None:
    write(cluster, CTR)
    first = read(cluster).model("ctr")
    write(cluster, replace(first, deleted=True))
    catalogue = read(cluster)
    assert catalogue.models == {}
    assert catalogue.was_deleted(model="ctr")
    write(cluster, replace(CTR, shards=2))
    catalogue.refresh()
    assert (catalogue.model("ctr").shards, catalogue.model("ctr").incarnation) == (2, 4)
    assert not catalogue.was_deleted(model="ctr")
    write(cluster, replace(first, tables=(USERS, ITEMS)), replace(first, deleted=True))
    catalogue.refresh()
    assert catalogue.model("ctr").tables == (USERS,), "records about the first incarnation must not touch the second"


def test_as_of_an_offset_is_what_the_records_before_it_say(cluster: MemoryCluster) -> None:
    (created,) = write(cluster, CTR)
    live = replace(CTR, incarnation=created)
    (grown,) = write(cluster, replace(live, tables=(USERS, ITEMS)))
    (deleted,) = write(cluster, replace(live, deleted=True))
    catalogue = read(cluster)
    answers = [catalogue.model_as_of("ctr", end) for end in range(catalogue.end + 1)]
    before = [None if answer is None else len(answer.tables) for answer in answers]
    assert before == [None] + [1] * (grown - created) + [2] * (deleted - grown) + [None]
    assert catalogue.model_as_of("other", catalogue.end) is None
    with pytest.raises(ValueError, match="read up to 5"):
        catalogue.model_as_of("ctr", catalogue.end + 1)


def test_of_two_racing_creations_the_first_counts(cluster: MemoryCluster) -> None:
    write(cluster, CTR, replace(CTR, shards=8, tables=(ITEMS,)))
    assert read(cluster).model("ctr") == replace(CTR, incarnation=0)


def test_of_two_racing_updates_neither_table_is_lost(cluster: MemoryCluster) -> None:
    write(cluster, CTR)
    live = replace(CTR, incarnation=0)
    bias = TableDeclaration("bias", dim=1)
    write(cluster, replace(live, tables=(USERS, ITEMS)), replace(live, tables=(replace(USERS, dim=99), bias)))
    assert read(cluster).model("ctr").tables == (USERS, ITEMS, bias)


def test_regions_may_move_and_go(cluster: MemoryCluster) -> None:
    write(cluster, RegionDeclaration("east"), RegionDeclaration("east", "late:1"))
    write(cluster, RegionDeclaration("east", "kafka-1:9092,kafka-2:9092", incarnation=0))
    catalogue = read(cluster)
    assert catalogue.region("east") == RegionDeclaration("east", "kafka-1:9092,kafka-2:9092", incarnation=0)
    write(cluster, RegionDeclaration("east", incarnation=0, deleted=True))
    catalogue.refresh()
    assert catalogue.regions == {}


def test_unknown_names_are_refused_with_those_that_exist(cluster: MemoryCluster) -> None:
    write(cluster, CTR, RegionDeclaration("east"))
    catalogue = read(cluster)
    with pytest.raises(ConfigurationError, match="model 'crt' is not in the catalogue") as wrong_model:
        catalogue.model("crt")
    assert "known: ctr" in wrong_model.value.hint
    with pytest.raises(ConfigurationError, match="region 'west'") as wrong_region:
        catalogue.region("west")
    assert "known: east" in wrong_region.value.hint
    write(cluster, replace(CTR, incarnation=0, deleted=True))
    catalogue.refresh()
    with pytest.raises(ConfigurationError, match="was deleted"):
        catalogue.model("ctr")


def test_what_strangers_wrote_is_passed_over(cluster: MemoryCluster, caplog: pytest.LogCaptureFixture) -> None:
    cut = encode(CTR)[:-3]
    write(cluster, b"\x00\x01\x02\x03", CTR, cut, encode(replace(CTR, name="other")))
    catalogue = read(cluster)
    assert sorted(catalogue.models) == ["ctr", "other"]
    assert caplog.text.count("is skipped") == 2


def test_a_tombstone_is_passed_over(cluster: MemoryCluster) -> None:
    cluster.transactional_writer("test").transact([Output(PARTITION, None, b"model:ctr")])
    write(cluster, CTR)
    assert "ctr" in read(cluster).models


def test_a_newer_format_halts_the_reader_each_time_it_is_asked(cluster: MemoryCluster) -> None:
    write(cluster, CTR)
    newer = bytearray(encode(replace(CTR, name="newer")))
    newer[3] = 63
    write(cluster, bytes(newer), replace(CTR, name="after"))
    catalogue = Catalogue(cluster)
    for _ in range(3):
        with pytest.raises(FormatTooNew):
            catalogue.refresh()
    assert list(catalogue.models) == ["ctr"], "what comes after a record that cannot be read must not be believed"


def test_writer_schemas_are_learnt(cluster: MemoryCluster) -> None:
    schemas = own_schemas()
    write(cluster, *schemas[:-1])
    catalogue = read(cluster)
    assert all(catalogue.has_schema(schema) for schema in schemas[:-1])
    assert not catalogue.has_schema(schemas[-1])


def test_poll_takes_what_came_and_says_so(cluster: MemoryCluster) -> None:
    catalogue = Catalogue(cluster)
    assert not catalogue.poll()
    write(cluster, CTR)
    assert catalogue.poll()
    assert catalogue.end == 1
    assert not catalogue.poll()


def test_reach_ends_with_an_error_in_time(cluster: MemoryCluster) -> None:
    write(cluster, CTR)
    catalogue = Catalogue(cluster)
    catalogue.reach(1)
    started = time.monotonic()
    with pytest.raises(ConnectionFailed, match="catalogue offset 7 was not reached within"):
        catalogue.reach(7, timeout_s=0.05)
    assert time.monotonic() - started < 9, "ten seconds by default"


def test_without_a_catalogue_there_is_a_clear_error() -> None:
    with pytest.raises(TopicMissing, match=r"ekko\.catalogue"):
        Catalogue(MemoryCluster(MemoryBroker(time.monotonic))).refresh()


def test_a_trimmed_catalogue_is_not_read_as_a_shorter_one(cluster: MemoryCluster) -> None:
    write(cluster, CTR, replace(CTR, name="other"))
    cluster.broker.trim(PARTITION, 2)
    with pytest.raises(GapError):
        Catalogue(cluster).refresh()


def test_a_mirror_tells_the_same_offsets_even_if_it_repeats_itself(cluster: MemoryCluster) -> None:
    write(cluster, RegionDeclaration("east"), CTR)
    write(cluster, replace(CTR, incarnation=2, tables=(USERS, ITEMS)))
    regional = MemoryCluster(MemoryBroker(time.monotonic))
    regional.create_topics([catalogue_topic().spec])
    copies = [mirrored(record) for record in read_all(cluster, PARTITION.topic)]
    regional.transactional_writer("mirror").transact([*copies[:2], *copies])
    there, here = read(regional), read(cluster)
    assert (there.models, there.regions, there.end) == (here.models, here.regions, here.end)
    ends = range(here.end + 1)
    assert [there.model_as_of("ctr", end) for end in ends] == [here.model_as_of("ctr", end) for end in ends]
