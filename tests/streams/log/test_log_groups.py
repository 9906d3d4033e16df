"""Consumer groups: what is committed carries its offset, and a group that works is left alone."""

import time
from collections.abc import Callable

import pytest

from ekko.schemas.errors import ConfigurationError
from ekko.streams.groups import Group, GroupPlace, metadata_of, reset_by_others
from ekko.streams.log import Cluster, Partition


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def commits(group: Group, places: dict[Partition, int]) -> bool:
    """Commit again and again, as a process does, until it stands there."""
    group.commit(places)
    return {at: place.offset for at, place in group.committed(places).items()} == places


def test_a_member_commits_and_others_are_refused_until_it_leaves(cluster: Cluster, topic: str) -> None:
    first, second = Partition(topic, 0), Partition(topic, 1)
    group, other = cluster.group(f"group-{topic}"), cluster.group(f"group-{topic}")
    assert group.committed([first, second]) == {}
    group.join([topic])
    wait_for(lambda: commits(group, {first: 7}))
    assert other.committed([first, second]) == {first: GroupPlace(7, metadata_of(7))}
    # Joining takes a broker some seconds; until then the group is nobody's.
    wait_for(lambda: commits(group, {first: 7}) and refused(other, {first: 7}))
    with pytest.raises(ConfigurationError, match="has members"):
        other.write({first: 3})
    assert other.committed([first])[first].offset == 7
    group.close()
    wait_for(lambda: not refused(other, {first: 3, second: 4}))
    assert other.committed([first, second]) == {first: GroupPlace(3, "ekko@3"), second: GroupPlace(4, "ekko@4")}
    other.close()


def refused(group: Group, places: dict[Partition, int]) -> bool:
    try:
        group.write(places)
    except ConfigurationError:
        return True
    return False


def test_what_others_have_written_is_told_by_its_metadata() -> None:
    at = [Partition("t", number) for number in range(4)]
    places = {at[0]: GroupPlace(5, "ekko@5"), at[1]: GroupPlace(6, ""), at[2]: GroupPlace(7, "ekko@5")}
    assert reset_by_others(places) == {at[1]: 6, at[2]: 7}
