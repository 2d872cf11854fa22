from __future__ import annotations

from otel_mlmon.processor.detect.cycles import VersionLineage
from otel_mlmon.processor.window.window import StreamKey
from otel_mlmon.types import ModelKey


def key(version: str, *, environment: str = "", name: str = "shop", stream: str = "input.age") -> StreamKey:
    return StreamKey(ModelKey(name, version, environment), stream)


def test_the_version_before_is_the_one_that_bears_the_traffic() -> None:
    lineage, traffic = VersionLineage(), {key("1"): 10.0, key("2"): 900.0, key("canary"): 50.0}
    for stream in (*traffic, key("9", environment="test"), key("9", name="other"), key("9", stream="input.x")):
        lineage.add(stream)
    assert lineage.find_previous_version(key("3"), traffic.__getitem__) == key("2")
    assert lineage.find_previous_version(key("2"), traffic.__getitem__) == key("canary")
    lineage.remove(key("2"))
    lineage.remove(key("2"))
    assert lineage.find_previous_version(key("3"), traffic.__getitem__) == key("canary")
    assert lineage.find_previous_version(key("1", name="unheard of"), traffic.__getitem__) is None
