import threading

import pytest

from sclatent.kernels.team import Team


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_work_is_shared_out_once_and_in_order(size, n):
    with Team(size) as team:
        parts = {}
        team.share(lambda number, part: parts.update({number: part}), n, step=2)
    covered = [i for number in sorted(parts) for i in range(n)[parts[number]]]
    assert covered == list(range(n))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_work_is_dealt_out_once(size, n):
    with Team(size) as team:
        parts = []
        team.deal(parts.append, n, step=2)
    assert sorted(i for part in parts for i in range(n)[part]) == list(range(n))


def test_a_thread_that_is_busy_is_dealt_no_part_meanwhile():
    over, names = threading.Event(), []
    with Team(2) as team:
        team.begin(over.wait)

        def take(part):
            names.append(threading.get_ident())
            if part.stop == 8:
                over.set()

        team.deal(take, 8)
    assert names == [threading.get_ident()] * 4


def test_each_thread_does_its_own_part():
    with Team(3) as team:
        names = [None] * 3
        team.each(lambda number: names.__setitem__(number, threading.get_ident()))
    assert len(set(names)) == 3
    assert names[0] == threading.get_ident()


def test_what_was_begun_is_done_before_what_comes_later():
    done = []
    with Team(2) as team:
        team.begin(lambda: done.append("first"))
        team.each(lambda number: done.append(number) if number else None)
        assert done == ["first", 1]


@pytest.mark.parametrize("size", [1, 2])
def test_an_error_in_any_part_is_raised_and_the_team_goes_on(size):
    def fail(number):
        if number == size - 1:
            raise KeyError(number)

    with Team(size) as team:
        with pytest.raises(KeyError):
            team.each(fail)
        done = []
        team.each(done.append)
        assert sorted(done) == list(range(size))


def test_its_threads_end_with_it():
    before = threading.active_count()
    with Team(3):
        assert threading.active_count() == before + 2
    assert threading.active_count() == before
