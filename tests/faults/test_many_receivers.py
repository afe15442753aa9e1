"""Many threads in one direction, fed by another process that no lock of this one holds up."""

from __future__ import annotations

import pytest

import proclink
from conformance.support import Background, wait_for
from faults import roles
from faults.children import Child

URLS = {"pipe": "pipe://crowd", "shm": "shm://crowd", "tcp": "tcp://127.0.0.1:0"}
COUNT = 20_000
THREADS = 6


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_each_message_comes_once_and_whole(url: str) -> None:
    received: list[list[int]] = [[] for _ in range(THREADS)]

    with proclink.bind(url, ring_size=64 * 1024) as link:

        def receive(numbers: list[int]) -> None:
            while True:
                message = link.recv()
                number = int.from_bytes(message[:4], "little")
                assert message[4:] == bytes(number * 7 % 3000)
                numbers.append(number)

        receiving = [Background(lambda n=numbers: receive(n)) for numbers in received]  # type: ignore[misc]
        with Child(roles.send_with_pauses, link.address, COUNT) as child:
            wait_for(lambda: sum(map(len, received)) >= COUNT, "the last message")
            child.say()
            assert child.wait() == 0
        link.close()
        for one in receiving:
            with pytest.raises(proclink.LinkClosed):
                one.result()
    assert all(numbers == sorted(numbers) for numbers in received)
    assert sorted(number for numbers in received for number in numbers) == list(range(COUNT))
