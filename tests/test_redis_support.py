"""The Redis that tests start: real, hurt on purpose, gone afterwards."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.redis_support import Proxy, RedisServer, server_binaries

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("binary", server_binaries(), ids=lambda path: path.name)
def test_a_server_keeps_its_data_over_a_power_cut_or_loses_it(binary: Path, temporary: Path) -> None:
    with RedisServer(temporary, binary).start(appendonly=True, password="s3cret") as server:
        with server.client() as client:
            client.set("a", "1")
        server.restart(data=True)
        with server.client() as client:
            assert client.get("a") == "1"
        server.restart(data=False)
        with server.client() as client:
            assert client.get("a") is None
        process = psutil.Process(server.pid)
        assert {one.laddr.ip for one in process.net_connections("inet")} <= {"127.0.0.1"}
    assert not process.is_running()


def test_a_paused_server_answers_once_it_goes_on(redis_server: RedisServer) -> None:
    redis_server.start(acl=("ann on >hers ~* &* +@all",))
    with socket.create_connection(("127.0.0.1", redis_server.port), 30) as one:
        redis_server.pause()
        one.sendall(b"AUTH ann hers\r\n")
        one.settimeout(0.05)
        with pytest.raises(TimeoutError):
            one.recv(10)
        redis_server.resume()
        one.settimeout(30)
        assert one.recv(10) == b"+OK\r\n"


def test_the_shared_server_is_empty_before_each_test(shared_redis: RedisServer) -> None:
    with shared_redis.client() as client:
        assert client.dbsize() == 0
        client.set("left", "over")
    shared_redis.flush()
    with shared_redis.client() as client:
        assert client.dbsize() == 0


def test_a_proxy_counts_round_trips_and_cuts_before_an_answer(shared_redis: RedisServer) -> None:
    """What a cut answer asked for is done all the same: that is the fault it makes."""
    with Proxy(shared_redis.port) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), 30) as one:
            one.sendall(b"PING\r\nPING\r\n")
            assert one.recv(14, socket.MSG_WAITALL) == b"+PONG\r\n" * 2
            assert proxy.round_trips == 1
            proxy.cut_before_answer()
            one.sendall(b"SET a 1\r\n")
            assert one.recv(10) == b""
            assert proxy.has_cut.wait(30)
        with redis.Redis(port=proxy.port, decode_responses=True, retry=Retry(NoBackoff(), 0)) as client:
            assert client.get("a") == "1"
            proxy.refuse()
            with pytest.raises(redis.ConnectionError):
                client.get("a")
