"""Workers of a sweep: whatever kills them, no finished row is lost, none is told twice, and no half file is read."""

import errno
import json
import os
import random
import threading

import pandas as pd
import pytest

from kvbench.decide import claims
from kvbench.decide.claims import OWNER, Claims
from kvbench.decide.gathered import Gathered
from kvbench.decide.manifest import NoManifest, read_manifest
from kvbench.decide.shards import DONE, FAILED, STOPPED, PointOutcome, Shards, Unreadable
from kvbench.decide.work import Places, is_fresh
from tests.support.killed import ROWS, killed, manifest_of, outcome_of, worker


def gathered(folder, manifest):
    shards = Shards(Places(folder).shards)
    shards.look()
    return Gathered(manifest, shards)


def done(folder, manifest):
    """The finished points, each of which has its rows, once."""
    found = gathered(folder, manifest)
    points = [told.point for told in found.told if told.state == DONE]
    summary = found.results().summary
    found.writers()["requests"](folder / "requests.parquet")
    if points:
        assert summary["value"].tolist() == [10 * point for point in points]
        assert summary["x"].tolist() == points
        rows = pd.read_parquet(folder / "requests.parquet")
        assert rows["latency_s"].tolist() == [point for point in points for _ in range(ROWS)]
        assert rows["x"].tolist() == rows["latency_s"].tolist()
    return set(points)


def check_kills(folder, num_kills, seed, num_points=24):
    manifest, before, drawn = manifest_of(num_points), set(), random.Random(seed)
    places = Places(folder)
    places.make()
    for _ in range(num_kills):
        if drawn.random() < 0.1:  # now and then by two at once, of which one goes on beside
            beside = threading.Thread(target=lambda: killed(drawn.randrange(1, 1500), worker(folder, manifest).work))
            beside.start()
            beside.join()
        killed(drawn.randrange(1, 1500), worker(folder, manifest).work)
        now = done(folder, manifest)
        assert before <= now
        before = now
    worker(folder, manifest).work()
    assert done(folder, manifest) == set(range(num_points))
    assert is_fresh(places)


def test_workers_that_are_killed_lose_nothing_and_tell_nothing_twice(tmp_path):
    check_kills(tmp_path, 6, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_workers_are_killed_a_hundred_times(tmp_path, seed):
    check_kills(tmp_path, 10, seed)


@pytest.mark.parametrize("line", [1, 40, 90, 140, 200, 300])
def test_what_a_killed_worker_claimed_is_another_ones_at_once(tmp_path, line):
    manifest = manifest_of(3)
    assert killed(line, worker(tmp_path, manifest).work)
    worker(tmp_path, manifest).work()  # which may wait for nobody
    assert done(tmp_path, manifest) == {0, 1, 2}


def test_two_that_take_each_other_for_dead_tell_each_point_once(tmp_path):
    """A clock that jumps makes the beat of an owner look as if it were out."""
    manifest, seconds = manifest_of(1), iter(range(0, 10**9, 10**6))
    second = worker(tmp_path, manifest, now_s=lambda: float(next(seconds)))

    def slow(point):
        other = tmp_path / ".claims" / "0-000000.0" / OWNER
        owner = json.loads(other.read_text().splitlines()[0]) | {"kernel": "another machine's"}
        other.write_text(json.dumps(owner) + "\n")
        second.shards.look()
        assert not second._ran(0, range(1))  # seen for the first time
        assert second._ran(0, range(1))  # by its clock, the beat is out for days
        return outcome_of(point)

    worker(tmp_path, manifest, slow).work()
    assert len(list(Places(tmp_path).shards.iterdir())) == 2
    assert done(tmp_path, manifest) == {0}


def test_the_clock_of_the_day_is_not_looked_at(tmp_path, monkeypatch):
    def jumps():
        raise AssertionError("a clock that may jump")

    for name in ("time", "time_ns"):
        monkeypatch.setattr(f"time.{name}", jumps)
    worker(tmp_path, manifest_of(5)).work()
    monkeypatch.undo()
    assert done(tmp_path, manifest_of(5)) == set(range(5))


def test_an_owner_elsewhere_lives_as_long_as_its_beat(tmp_path):
    now_s = 0.0
    (tmp_path / "a.0").mkdir()
    owner = tmp_path / "a.0" / OWNER
    owner.write_text('{"kernel": "another"}\n')
    watching = Claims(tmp_path, now_s=lambda: now_s, lease_s=100.0)
    for seconds, beat in ((0.0, ""), (90.0, ""), (99.0, "1"), (190.0, "1")):
        now_s = seconds
        owner.write_text(f'{{"kernel": "another"}}\n{beat}')
        with watching.claimed("a") as is_mine:
            assert not is_mine
    now_s = 200.0
    with watching.claimed("a") as is_mine:
        assert is_mine
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.0", "a.1"]
    assert list(tmp_path.iterdir()) == []


def test_a_claim_is_one_processs(tmp_path):
    first, second = Claims(tmp_path), Claims(tmp_path)
    with first.claimed("a") as is_first, second.claimed("a") as is_second, second.claimed("b") as is_other:
        assert (is_first, is_second, is_other) == (True, False, True)
        assert {owner["pid"] for owner in second.living()} == {os.getpid()}
    with second.claimed("a") as is_second:
        assert is_second


def test_who_wakes_up_late_removes_nobody_elses_claim(tmp_path):
    with Claims(tmp_path).claimed("a"):
        claims.disappear(tmp_path / "a.0")
        late = Claims(tmp_path).claimed("a")
        assert late.__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["a.0"]
    late.__exit__(None, None, None)


def test_a_beat_goes_on_while_a_claim_is_held(tmp_path):
    beating = threading.Event()
    write = os.pwrite

    def heard(*arguments):
        write(*arguments)
        beating.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", heard)
        with Claims(tmp_path, beat_s=0.0001).claimed("a"):
            assert beating.wait(60)
            assert (tmp_path / "a.0" / OWNER).read_text().splitlines()[1].strip().isdecimal()


def test_a_point_that_takes_long_is_written_when_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("kvbench.decide.manifest.LEAST_CHUNKS", 4)
    manifest, seconds, seen = manifest_of(8), iter(range(10**6)), []

    def looks(point):
        seen.append(done(tmp_path, manifest))
        return outcome_of(point)

    worker(tmp_path, manifest, looks, now_s=lambda: 2.0 * next(seconds)).work()
    assert seen[:4] == [set(), {0}, {0, 1}, {0, 1, 2}]
    assert len(list(Places(tmp_path).shards.iterdir())) == 4  # those of a chunk went into one
    assert done(tmp_path, manifest) == set(range(8))


def test_what_failed_is_tried_again_in_the_next_turn_alone(tmp_path):
    manifest, tried = manifest_of(4), []

    def breaks(point):
        tried.append(point.number)
        works = point.number != 2 or tried.count(2) > 1
        return outcome_of(point) if works else PointOutcome(state=FAILED, error="broken")

    worker(tmp_path, manifest, breaks).work()
    worker(tmp_path, manifest, breaks).work()
    assert tried == [0, 1, 2, 3]
    assert [told.error for told in gathered(tmp_path, manifest).told] == ["", "", "broken", ""]
    assert Places(tmp_path).next_turn() == 1
    worker(tmp_path, manifest, breaks).work()
    assert tried == [0, 1, 2, 3, 2]
    assert done(tmp_path, manifest) == {0, 1, 2, 3}


def test_a_signal_keeps_what_is_done_and_a_part_of_the_next(tmp_path):
    manifest = manifest_of(4)

    def stops(point):
        if point.number == 1:
            stop = KeyboardInterrupt("1 of 2 is done")
            stop.results = outcome_of(point).results
            raise stop
        return outcome_of(point)

    with pytest.raises(KeyboardInterrupt, match="1 of 2 is done"):
        worker(tmp_path, manifest, stops).work()
    assert [told.state for told in gathered(tmp_path, manifest).told] == [DONE, STOPPED]
    assert is_fresh(Places(tmp_path))
    worker(tmp_path, manifest).work()
    assert done(tmp_path, manifest) == set(range(4))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_takes_no_more_is_told_and_what_is_there_stands(tmp_path, monkeypatch, code):
    manifest = manifest_of(3)

    def full(*arguments, **how):
        raise OSError(code, os.strerror(code))

    def fills_up(point):
        if point.number == 1:
            monkeypatch.setattr("pandas.DataFrame.to_parquet", full)
        return outcome_of(point)

    with pytest.raises(OSError, match=os.strerror(code)):
        worker(tmp_path, manifest, fills_up).work()
    monkeypatch.undo()
    assert done(tmp_path, manifest) == {0}
    assert {path.name for path in Places(tmp_path).shards.iterdir()} == {"000000-0000"}
    worker(tmp_path, manifest).work()
    assert done(tmp_path, manifest) == {0, 1, 2}


def test_a_shard_that_is_broken_is_named(tmp_path):
    manifest = manifest_of(2)
    worker(tmp_path, manifest).work()
    (Places(tmp_path).shards / "000001-0000" / "summary.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(Unreadable, match=r"000001-0000/summary\.parquet cannot be read"):
        gathered(tmp_path, manifest).results()
    (Places(tmp_path).shards / "000001-0000" / "points.json").write_text("{")
    with pytest.raises(Unreadable, match="000001-0000 cannot be read: Expecting"):
        gathered(tmp_path, manifest)
    (Places(tmp_path).shards / "000001-0000" / "points.json").unlink()
    with pytest.raises(Unreadable, match=r"000001-0000 cannot be read: it has no points\.json"):
        gathered(tmp_path, manifest)


def test_a_manifest_is_read_back_and_tells_what_is_another(tmp_path):
    manifest = manifest_of(5, versions={"code": "a", "packages": {"torch": "1"}})
    manifest.write(tmp_path)
    again = read_manifest(tmp_path)
    assert again == manifest
    assert again.identity == manifest.identity
    assert [again.combination(number).values for number in (0, 4)] == [(("x", 0),), (("x", 4),)]
    other = manifest_of(5, versions={"code": "a", "packages": {"torch": "2"}}, machine={"host": "b"})
    assert manifest.differences(other) == ["torch: 1 there, 2 here", "it: none there, {'host': 'b'} here"]
    assert manifest.differences(manifest_of(6, versions=manifest.versions)) == ["the points differ"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "it has no manifest.json"),
        ("{", "cannot be read"),
        ("[]", "version None"),
        ('{"version": 99}', "version 99; this kvbench reads 1"),
        ('{"version": 1}', "is no manifest of a sweep"),
    ],
)
def test_what_is_no_manifest_is_told(tmp_path, text, words):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(NoManifest, match=words):
        read_manifest(tmp_path)
