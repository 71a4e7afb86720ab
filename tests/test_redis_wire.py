"""The thin client of Redis: addresses, bytes, and a connection to a real server that is hurt in every way."""

from __future__ import annotations

import _socket
import select
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devsup.errors import FleetUnreachable, UsageError
from devsup.redis import lookup, resp
from devsup.redis.address import Address, parse
from devsup.redis.connection import Client, Connection, failed
from devsup.redis.resp import PENDING, ErrorReply, Parser, ProtocolError, Push
from tests.redis_support import Proxy, RedisServer, server_binaries, swallowing
from tests.support import ROOT, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support import Spawn

#: Seconds in which anything here happens on a machine with other things to do.
PATIENCE = 30.0
#: The first text that is drawn in a fresh clone has Hypothesis make its tables of characters: seconds.
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected", "shown"),
    [
        ("redis://", Address(), "redis://localhost:6379"),
        ("redis://h", Address(host="h"), "redis://h:6379"),
        ("REDIS://h:1/", Address(host="h", port=1), "redis://h:1"),
        ("redis://h:1/3", Address(host="h", port=1, db=3), "redis://h:1/3"),
        ("redis://h/3?db=2", Address(host="h", db=2), "redis://h:6379/2"),
        ("valkey://[::1]:7", Address(host="::1", port=7), "redis://[::1]:7"),
        ("redis://:pw@h", Address(host="h", password="pw"), "redis://:***@h:6379"),
        ("redis://ann:p%2Fw@h", Address(host="h", user="ann", password="p/w"), "redis://ann:***@h:6379"),
        ("redis://ann@h", Address(host="h", user="ann", password=""), "redis://ann@h:6379"),
        ("redis://:a@b@h", Address(host="h", password="a@b"), "redis://:***@h:6379"),
        ("redis://:a/b@h:7", Address(host="h", port=7, password="a/b"), "redis://:***@h:7"),
        ("redis://:100%@h", Address(host="h", password="100%"), "redis://:***@h:6379"),
        ("redis://:%e4%zz@h", Address(host="h", password="\udce4%zz"), "redis://:***@h:6379"),
        ("redis://h?username=ann&password=pw&protocol=3", Address(host="h", user="ann", password="pw"),
         "redis://ann:***@h:6379"),
        ("rediss://h", Address(host="h", tls=True), "rediss://h:6379"),
        ("valkeys://h?ssl_cert_reqs=none&ssl_ca_certs=/a%20b&ssl_check_hostname=false",
         Address(host="h", tls=True, ssl_cert_reqs="none", ssl_ca_certs="/a b", ssl_check_hostname=False),
         "rediss://h:6379"),
        ("unix:///run/r.sock", Address(path="/run/r.sock"), "unix:///run/r.sock"),
        ("unix:///run/a@b.sock", Address(path="/run/a@b.sock"), "unix:///run/a@b.sock"),
        ("unix://ann:pw@/run/r.sock?db=2", Address(path="/run/r.sock", user="ann", password="pw", db=2),
         "unix://ann:***@/run/r.sock?db=2"),
    ],
)  # fmt: skip
def test_an_address_is_read_and_shown_without_its_password(url: str, expected: Address, shown: str) -> None:
    address = parse(url)
    assert address == expected
    assert str(address) == shown
    assert repr(address) == f"<Address {shown}>"
    assert parse(str(address)).replace(password=None, user=None).host == expected.host


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:6379",
        "http://:s3cret@h",
        "redis://:s3#cret@h",
        "redis://:s3 cret@h",
        "redis://:s3cret@h\n",
        "redis://:s3?cret@h",
        "redis://:s3cret@h:port",
        "redis://:s3cret@h:65536",
        "redis://:s3cret@h:-1",
        pytest.param(f"redis://:s3cret@h:{'7' * 5000}", id="a port that Python reads no number from"),
        "redis://:s3cret@h/one",
        "redis://:s3cret@h/1/2",
        "redis://:s3cret@[::1",
        "redis://:s3cret@[::1]x",
        "unix://:s3cret@tmp/r.sock",
        "unix://:s3cret@",
        "rediss://:s3cret@h?ssl_cert_reqs=maybe",
        "rediss://:s3cret@h?ssl_check_hostname=s3cret",
        "rediss://:s3cret@h?ssl_cert_req=none",
    ],
)
def test_what_is_no_address_is_refused_without_showing_it(url: str) -> None:
    """A password with a `/` or a `?` that was not escaped ends up in any part: none of them is repeated."""
    with pytest.raises(UsageError) as caught:
        parse(url)
    for text in (caught.value.message, str(caught.value.hint)):
        assert "cret" not in text
        assert "s3" not in text
    assert caught.value.hint


@patiently
@given(st.text())
def test_no_text_makes_reading_an_address_fail_otherwise(text: str) -> None:
    for scheme in ("redis", "rediss", "unix"):
        try:
            parse(f"{scheme}://{text}")
        except UsageError:
            pass


# -- bytes -----------------------------------------------------------------------------------------


@st.composite
def _replies(draw: st.DrawFn, depth: int = 3) -> tuple[bytes, Any]:
    """Draw a reply: its bytes as a server would write them, and what it is to be read as."""
    kind = draw(st.sampled_from("$+-!=:(,#_" + ("*~>%|" if depth else "")))
    if kind in "$!=+-":
        text = draw(st.text(st.characters(codec="utf-8"), max_size=20))
        if kind in "+-":
            text = text.replace("\r", "").replace("\n", "")
            return f"{kind}{text}\r\n".encode(), ErrorReply(text) if kind == "-" else text
        data = ("txt:" if kind == "=" else "").encode() + text.encode()
        return b"%b%d\r\n%b\r\n" % (kind.encode(), len(data), data), ErrorReply(text) if kind == "!" else text
    if kind in ":(":
        number = draw(st.integers())
        return f"{kind}{number}\r\n".encode(), number
    if kind == ",":
        decimal = draw(st.floats(allow_nan=False))
        return f",{decimal!r}\r\n".encode(), decimal
    if kind == "#":
        truth = draw(st.booleans())
        return (b"#t\r\n" if truth else b"#f\r\n"), truth
    if kind == "_":
        return draw(st.sampled_from([b"_\r\n", b"$-1\r\n", b"*-1\r\n"])), None
    inner = _replies(depth - 1)
    if kind in "%|":
        pairs = draw(st.lists(st.tuples(_replies(0), inner), max_size=3, unique_by=lambda pair: pair[0][1]))
        head = b"%b%d\r\n" % (kind.encode(), len(pairs)) + b"".join(key[0] + value[0] for key, value in pairs)
        if kind == "%":
            return head, {key[1]: value[1] for key, value in pairs}
        data, value = draw(inner)  # an attribute says something about the value behind it, and is none
        return head + data, value
    parts = draw(st.lists(inner, max_size=4))
    head = b"%b%d\r\n" % (kind.encode(), len(parts)) + b"".join(data for data, _ in parts)
    values = [value for _, value in parts]
    return head, Push(values) if kind == ">" else values


def same(one: object, other: object) -> bool:
    """Compare with the types: `True == 1`, and an error is a text too."""
    return repr(one) == repr(other) and type(one) is type(other)


@patiently
@given(st.lists(_replies(), max_size=4), st.lists(st.integers(0, 400), max_size=8))
def test_replies_are_read_whole_however_they_are_cut(replies: list[Any], cuts: list[int]) -> None:
    stream = b"".join(data for data, _ in replies)
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    pieces = [stream[a:b] for a, b in pairwise(places)]
    for way in (pieces, [stream[at : at + 1] for at in range(len(stream))]):
        parser, found = Parser(), []
        for piece in way:
            parser.feed(piece)
            while (reply := parser.get()) is not PENDING:
                found.append(reply)
        assert len(found) == len(replies)
        assert all(same(one, value) for one, (_, value) in zip(found, replies, strict=True))


@patiently
@given(st.lists(st.one_of(st.text(), st.binary(), st.integers()), min_size=1))
def test_a_command_is_a_list_of_texts_on_the_wire(args: list[str | bytes | int]) -> None:
    try:
        data = resp.encode(args)
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return
    parser = Parser()
    parser.feed(data)
    texts = [one.decode("utf-8", "surrogateescape") if isinstance(one, bytes) else one for one in args]
    assert parser.get() == [str(one) for one in texts]


@patiently
@given(st.binary(max_size=60), st.sampled_from([b"", b"*3\r\n", b"$5\r\n", b"%1\r\n", b":"]))
def test_nonsense_is_refused_and_nothing_worse(data: bytes, head: bytes) -> None:
    parser = Parser()
    parser.feed(head + data)
    try:
        while parser.get() is not PENDING:
            pass
    except ProtocolError:
        pass


def test_a_stranger_is_known_by_its_first_byte_and_a_line_has_an_end() -> None:
    for data in (
        b"HTTP/1.1 400 Bad Request\r\n",
        b"H",
        b"+" + b"x" * 70_000,
        b"$999999999999\r\n",
        b":x\r\n",
    ):
        parser = Parser()
        parser.feed(data)
        with pytest.raises(ProtocolError):
            parser.get()


def test_a_long_list_costs_what_is_in_it_however_it_arrives() -> None:
    """100,000 texts in pieces of 1 KiB: a parser that begins anew with each piece needs minutes."""
    stream = b"*100000\r\n" + b"$10\r\n0123456789\r\n" * 100_000
    parser, began = Parser(), time.monotonic()
    reply: object = PENDING
    for at in range(0, len(stream), 1024):
        parser.feed(stream[at : at + 1024])
        reply = parser.get()
    assert isinstance(reply, list)
    assert len(reply) == 100_000
    assert time.monotonic() - began < 10


def test_the_shapes_of_both_protocols_read_alike() -> None:
    assert resp.mapping({"a": "1"}) == resp.mapping(["a", "1"]) == {"a": "1"}
    assert resp.scored([["a", 1.5]]) == resp.scored(["a", "1.5"]) == {"a": 1.5}
    assert resp.mapping([]) == {}
    assert resp.scored([]) == {}


# -- connections -----------------------------------------------------------------------------------


def drive(
    connection: Connection, until: Callable[[list[object]], bool], seconds: float = PATIENCE
) -> list[object]:
    """Advance ``connection`` as a loop does until what it gave satisfies ``until`` or it is closed."""
    found: list[object] = []
    deadline = time.monotonic() + seconds
    while True:
        found += connection.advance()
        if until(found) or connection.closed_why is not None:
            return found
        assert time.monotonic() < deadline, (found, connection.waits_for)
        poll = select.poll()
        poll.register(connection.fd, connection.events)
        # Not a look now and then: a loop sleeps for minutes where `events` does not wake it.
        assert poll.poll(seconds * 1000), (found, connection.waits_for)


def up(connection: Connection) -> Connection:
    """Drive ``connection`` until it is up."""
    drive(connection, lambda _: connection.is_up)
    assert connection.is_up, connection.closed_why
    return connection


def ask(connection: Connection, *commands: tuple[str | int, ...]) -> list[object]:
    """Send ``commands`` and return as many replies, pushes left out."""
    connection.send(*commands)
    found = drive(connection, lambda all_: sum(not isinstance(one, Push) for one in all_) >= len(commands))
    return [one for one in found if not isinstance(one, Push)]


def refusal(address: Address, *command: str | int, timeout: float = PATIENCE) -> FleetUnreachable:
    """Return the error that ``command`` must meet."""
    with Client(address, timeout) as client, pytest.raises(FleetUnreachable) as caught:
        client.call(*(command or ("PING",)))
    error = caught.value
    assert error.message.startswith(f"Redis at `{address}` cannot be used: ")
    assert error.details["address"] == str(address)
    return error


@pytest.fixture(params=server_binaries(), ids=lambda path: path.name)
def server(request: pytest.FixtureRequest, redis_server: RedisServer) -> RedisServer:
    """Give each server there is in turn, not yet started."""
    redis_server.binary = request.param
    return redis_server


def test_it_comes_up_signed_in_named_and_in_its_database(server: RedisServer) -> None:
    server.start(password="s3cret", acl=("ann on >h%2Fers ~* &* +@all",))
    for url in (
        f"redis://:s3cret@127.0.0.1:{server.port}/2",
        f"redis://ann:h%252Fers@localhost:{server.port}/2",
        f"unix://ann:h%252Fers@{server.socket}?db=2",
    ):
        connection = Connection(parse(url), name="devsup-guard")
        connection.send(("SET", "a", "ä\udcff"))  # before it is up
        assert drive(connection, lambda all_: len(all_) == 1) == ["OK"]
        assert connection.is_up
        assert connection.protocol == 3
        info, value, gone = ask(connection, ("CLIENT", "LIST"), ("GET", "a"), ("GET", "b"))
        assert "name=devsup-guard" in str(info)
        assert "db=2" in str(info)
        assert (value, gone) == ("ä\udcff", None)
        connection.close()
        connection.close()
        assert (connection.fd, connection.advance(), connection.closed_why) == (-1, [], "closed by this side")
    with server.client(2) as client:
        assert client.exists("a")


def test_pushes_come_beside_replies_on_one_connection(server: RedisServer) -> None:
    server.start()
    connection = up(Connection(parse(server.url)))
    connection.send(("SUBSCRIBE", "mail"), ("SET", "a", 1))
    first = drive(connection, lambda all_: len(all_) == 2)
    assert first == [["subscribe", "mail", 1], "OK"]
    assert isinstance(first[0], Push)
    with server.client() as client:
        assert client.publish("mail", "look") == 1
    found = drive(connection, lambda all_: len(all_) == 1)
    assert found == [["message", "mail", "look"]]
    assert isinstance(found[0], Push)
    assert found[0].kind == "message"
    assert ask(connection, ("GET", "a"), ("HGETALL", "none")) == ["1", {}]
    connection.close()


def test_where_hello_is_refused_it_goes_on_in_the_older_protocol(server: RedisServer) -> None:
    """The password is sent on its own, so it does not go down with the HELLO, nor do the commands behind."""
    server.start(password="s3cret", config={"rename-command": 'HELLO ""'})
    address = parse(f"redis://:s3cret@127.0.0.1:{server.port}/1")
    connection = up(Connection(address, name="devsup"))
    assert connection.protocol == 2
    flat, info = ask(connection, ("HSET", "h", "a", 1), ("CLIENT", "LIST"))
    assert flat == 1
    assert "name=devsup " in str(info)
    assert ask(connection, ("HGETALL", "h")) == [["a", "1"]]
    connection.close()
    with Client(address) as client:
        assert resp.mapping(client.call("HGETALL", "h")) == {"a": "1"}


def test_a_pipeline_with_all_that_goes_before_it_is_one_round_trip(shared_redis: RedisServer) -> None:
    with Proxy(shared_redis.port) as proxy:
        address = parse(f"{proxy.url}/3")
        with Client(address, PATIENCE, name="counted") as client:
            replies = client.pipeline([("CLIENT", "GETNAME"), ("NOSUCH",), ("SET", "a", b"\xff")])
            assert (replies[0], replies[2], proxy.round_trips) == ("counted", "OK", 1)
            assert isinstance(replies[1], ErrorReply)
            assert client.call("GET", "a") == "\udcff"
            assert client.pipeline([]) == []
            assert (proxy.round_trips, proxy.connections) == (2, 1)


def test_what_is_to_be_said_first_goes_with_the_greeting(shared_redis: RedisServer) -> None:
    """It is asked for when that goes out; what is said before the answer does not wait for it either."""
    asked: list[bool] = []

    def first() -> list[tuple[str, ...]]:
        asked.append(connection.is_up)
        return [("CLIENT", "GETNAME"), ("SUBSCRIBE", "mail")]

    with Proxy(shared_redis.port) as proxy:
        connection = Connection(parse(f"{proxy.url}/3"), name="first", first=first)
        connection.send(("ECHO", "a"))
        assert asked == []
        found: list[object] = []
        while not asked:
            found += connection.advance()
        connection.send(("ECHO", "b"))
        found += drive(connection, lambda more: len(found) + len(more) == 4)
        assert (asked, found) == ([False], ["first", ["subscribe", "mail", 1], "a", "b"])
        assert proxy.round_trips <= 2
        connection.close()


def test_what_is_said_with_a_greeting_that_is_refused_is_one_failure(redis_server: RedisServer) -> None:
    redis_server.start(password="s3cret")
    for login, words in ((":wr0ng@", "it refuses this user or password"), ("", "it wants a password")):
        address = parse(f"redis://{login}127.0.0.1:{redis_server.port}")
        connection = Connection(address, first=lambda: [("SET", "a", 1), ("PING",)])
        assert drive(connection, bool) == []
        assert connection.closed_why == words
    with redis_server.client() as client:
        assert not client.exists("a")


def test_more_than_the_buffers_hold_goes_both_ways_at_once(shared_redis: RedisServer) -> None:
    """A client that first sends all and then reads would wait for a server that waits for it."""
    text = "x" * 200_000
    with Client(parse(shared_redis.url), PATIENCE) as client:
        assert client.pipeline([("ECHO", text)] * 200) == [text] * 200


def test_a_server_killed_amid_a_reply_is_told_and_another_call_connects_anew(
    redis_server: RedisServer,
) -> None:
    redis_server.start()
    address = parse(redis_server.url)
    with Client(address, PATIENCE) as client:
        client.call("SETRANGE", "big", 64_000_000, "x")
        connection = up(Connection(address))
        connection.send(("GET", "big"))
        wait_until(lambda: connection.advance() or connection._parser._buffer)
        redis_server.restart(data=False)
        assert drive(connection, bool) == []
        assert connection.closed_why in {"it closed the connection", "it broke the connection off"}
        assert "connection" in connection.error().message
        # What was closed between two calls is no failure: nothing had been sent.
        assert client.call("PING") == "PONG"


def test_a_call_that_was_cut_from_its_answer_fails_and_is_not_done_again(shared_redis: RedisServer) -> None:
    with Proxy(shared_redis.port) as proxy, Client(parse(proxy.url), PATIENCE) as client:
        client.call("SET", "count", 0)
        proxy.cut_before_answer()
        with pytest.raises(FleetUnreachable, match=r"it (closed|broke) the connection"):
            client.call("INCR", "count")
        assert client.call("GET", "count") == "1"
        assert proxy.connections == 2


@pytest.mark.parametrize("moment", ["before the connection", "after it"])
def test_a_frozen_server_costs_no_more_than_the_deadline(redis_server: RedisServer, moment: str) -> None:
    redis_server.start()
    with Client(parse(redis_server.url), PATIENCE) as client:
        connection = up(Connection(parse(redis_server.url)))
        if moment == "after it":
            client.call("PING")
        redis_server.pause()
        began = time.monotonic()
        with pytest.raises(FleetUnreachable, match=r"no answer within 0\.3 s"):
            client.call("PING", timeout=0.3)
        assert 0.3 <= time.monotonic() - began < 5
        connection.send(("PING",))
        assert [connection.advance() for _ in range(1000)] == [[]] * 1000
        redis_server.resume()
        assert drive(connection, bool) == ["PONG"]
        assert client.call("PING") == "PONG"
        connection.close()


def test_what_cannot_be_connected_to_is_said_in_words(
    redis_server: RedisServer, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(parse(f"redis://:s3cret@127.0.0.1:{free_port()}")).details["cause"] == "connection refused"
    assert refusal(parse(f"redis://localhost:{free_port()}")).details["cause"] == "connection refused"
    assert "no such socket" in refusal(parse(f"unix://{temporary}/none")).message
    redis_server.start()
    with Client(parse(redis_server.url), PATIENCE) as client:
        client.call("CONFIG", "SET", "maxclients", 1)
        assert "as many clients as it allows" in refusal(parse(redis_server.url)).message

    def fail(*_: object) -> list[object]:
        raise _socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(_socket, "getaddrinfo", fail)
    assert "the name `nowhere.test` leads nowhere" in refusal(parse("redis://nowhere.test")).message
    monkeypatch.undo()
    for impossible in ("redis://a%00b", f"redis://{'x' * 70}ä", "redis://%e4.test"):
        assert "leads nowhere" in refusal(parse(impossible)).message
    assert "too long" in refusal(parse(f"unix:///{'x' * 200}")).message


def test_a_name_that_is_slow_to_look_up_keeps_nobody_waiting(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first address of a name need not be the one that answers."""
    asked, go = threading.Event(), threading.Event()
    found = [
        (_socket.AF_INET, _socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        for port in (free_port(), shared_redis.port)
    ]

    def look_up(*_: object) -> list[object]:
        asked.set()
        assert go.wait(PATIENCE)
        return [*found]

    monkeypatch.setattr(_socket, "getaddrinfo", look_up)
    with Client(parse("redis://slow.test"), 0.2) as client:
        with pytest.raises(FleetUnreachable, match=r"its name was not found within 0\.2 s"):
            client.call("PING")
        connection = Connection(parse("redis://slow.test"))
        assert asked.wait(PATIENCE)
        assert connection.advance() == []
        assert connection.waits_for == "its name was not found"
        go.set()
        assert ask(connection, ("PING",)) == ["PONG"]
        connection.close()
        assert client.call("PING", timeout=PATIENCE) == "PONG"


def test_an_address_that_swallows_everything_is_left_for_the_next_one(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name may lead to a network that is cut off, say the newer of two, and to one that is not."""
    with swallowing() as port:
        found = [(_socket.AF_INET, ("127.0.0.1", one)) for one in (port, shared_redis.port)]
        monkeypatch.setattr(lookup, "known", lambda *_: found)
        with Client(parse("redis://two.test"), 4.0) as client:
            assert client.call("PING") == "PONG"
        found = found[:1] * 2
        with (
            Client(parse("redis://two.test"), 0.2) as client,
            pytest.raises(FleetUnreachable, match="no connection"),
        ):
            client.call("PING")


def test_a_wrong_login_is_told_and_no_password_is_shown(server: RedisServer) -> None:
    server.start(password="s3cret", acl=("ann on >hers ~devsup:* &* +@all -config",))
    place = f"127.0.0.1:{server.port}"
    for url, words in (
        (f"redis://:wr0ng-pw@{place}", "it refuses this user or password"),
        (f"redis://bob:wr0ng-pw@{place}", "it refuses this user or password"),
        (f"redis://{place}", "it wants a password"),
        (f"redis://:s3cret@{place}/77", "it has no database 77"),
    ):
        error = refusal(parse(url))
        assert words in error.message
        assert error.hint
        assert "wr0ng" not in repr((error.message, error.hint, error.details))
        connection = Connection(parse(url))
        assert drive(connection, bool) == []
        assert connection.closed_why == words
    ann = parse(f"redis://ann:hers@{place}")
    assert "its access rules forbid this" in refusal(ann, "CONFIG", "GET", "*").message
    assert refusal(ann, "SET", "other", 1).details["reply"].startswith("NOPERM")


def test_a_password_that_redis_repeats_is_masked(redis_server: RedisServer) -> None:
    redis_server.start(config={"rename-command": 'AUTH ""'})
    error = refusal(parse(f"redis://:s3cret-pw@127.0.0.1:{redis_server.port}"))
    assert "it does not know `AUTH`" in error.message
    assert "unknown command" in error.details["reply"]
    assert "s3cret" not in repr((error.message, error.details))
    redis_server.kill()
    redis_server.start()
    error = refusal(parse(f"redis://:s3cret-pw@127.0.0.1:{redis_server.port}"))
    assert "it has no password" in error.message or "refuses" in error.message


def test_a_server_that_takes_no_writes_says_why(server: RedisServer) -> None:
    server.start(config={"replicaof": f"127.0.0.1 {free_port()}"})
    address = parse(server.url)
    assert "it is a read-only replica" in refusal(address, "SET", "a", 1).message
    script = "return redis.call('SET', KEYS[1], '1')"
    assert "it is a read-only replica" in refusal(address, "EVAL", script, 1, "a").message
    server.kill()
    server.start(maxmemory="1")
    assert "it is out of memory" in refusal(address, "SET", "a", 1).message
    assert "it is out of memory" in refusal(address, "EVAL", script, 1, "a").message
    server.kill()
    server.start(config={"cluster-enabled": "yes"})
    assert "its cluster is down" in refusal(address, "SET", "a", 1).message


def test_a_server_that_still_loads_says_so(server: RedisServer) -> None:
    config = {"rdbcompression": "no"}
    server.start(config=config)
    with Client(parse(server.url), PATIENCE) as client:
        client.pipeline([("SETRANGE", f"a{number}", 100_000, "x") for number in range(60)])
        client.call("SAVE")
        server.kill()
        # It looks up from loading every 2 MB, at 20 ms for each 100 kB.
        server.start(wait=False, config=config | {"key-load-delay": "20000"})

        def is_loading() -> bool:
            try:
                client.call("GET", "a1")
            except FleetUnreachable as error:
                return "it is still loading its data" in error.message
            return False

        wait_until(is_loading, PATIENCE, pause=0.005)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("MOVED 866 10.0.0.2:6379", "the key lies on another, `10.0.0.2:6379`"),
        ("MISCONF Redis is configured to save RDB snapshots, but ...", "it cannot save its data"),
        ("BUSY Redis is busy running a script.", "a script keeps it busy"),
        ("DENIED Redis is running in protected mode because ...", "protected mode"),
        (
            "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't",
            "it is a read-only replica",
        ),
        (
            "ERR Error running script (call to f_1): @user_script:4: WRONGTYPE Operation against a key ...",
            "another program has written where devsup keeps something",
        ),
        ("ERR Error running script (call to f_1): @user_script:4: attempt to call nil", "it answers `ERR"),
        ("ERR wrong number of arguments for 'get' command", "it answers `ERR wrong number"),
    ],
)
def test_an_error_reply_is_told_in_words(reply: str, words: str) -> None:
    error = failed(parse("redis://:pw@h"), ErrorReply(reply))
    assert words in error.message
    assert error.details["reply"] == reply
    assert error.exit_code == 13


def test_what_is_no_redis_is_told() -> None:
    """An HTTP server answers too, and so does one that expects TLS: with an alert, byte 21."""
    for answer, words in (
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what listens there is no Redis: it says `HTTP/1.1 400"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "it speaks TLS only"),
        (b"", "it closed the connection"),
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve(listener: socket.socket = listener, answer: bytes = answer) -> None:
                one, _ = listener.accept()
                with one:
                    one.recv(4096)
                    one.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            assert words in refusal(parse(f"redis://127.0.0.1:{listener.getsockname()[1]}")).message
            thread.join(PATIENCE)


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture
def tls_proxy(shared_redis: RedisServer, temporary: Path) -> Iterator[tuple[Proxy, Path]]:
    """Give a relay that speaks TLS with a certificate of its own for 127.0.0.1, and the certificate."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    key, certificate = temporary / "key.pem", temporary / "certificate.pem"
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=test",
            "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with Proxy(shared_redis.port, tls=context) as proxy:
        yield proxy, certificate


def test_tls_is_spoken_and_whoever_answers_is_checked(
    tls_proxy: tuple[Proxy, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, certificate = tls_proxy
    address = parse(f"{proxy.url}/1?ssl_ca_certs={certificate}")
    with Client(address, PATIENCE) as client:
        text = "x" * 300_000
        assert client.pipeline([("ECHO", text)] * 20) == [text] * 20
        assert client.call("PING") == "PONG"
    connection = up(Connection(address))
    connection.send(("SUBSCRIBE", "mail"), ("PING",))
    assert drive(connection, lambda all_: len(all_) == 2) == [["subscribe", "mail", 1], "PONG"]
    # Of what OpenSSL has taken from the socket no `poll()` tells: an `advance` must not leave it there.
    monkeypatch.setattr("devsup.redis.connection._GULP", 1)
    assert ask(connection, ("ECHO", text)) == [text]
    proxy.cut()
    assert drive(connection, bool) == []
    assert connection.closed_why is not None
    with Client(parse(f"{proxy.url}?ssl_cert_reqs=none"), PATIENCE) as client:
        assert client.call("PING") == "PONG"
    assert "its certificate is not to be trusted: self" in refusal(parse(proxy.url)).message
    other = f"rediss://localhost:{proxy.port}?ssl_ca_certs={certificate}"
    assert "its certificate is not to be trusted" in refusal(parse(other)).message
    missing = refusal(parse(f"{proxy.url}?ssl_ca_certs=/none.pem"))
    assert "no such file" in missing.message
    assert "ssl_" in str(missing.hint)


def test_tls_and_clear_text_are_told_apart(tls_proxy: tuple[Proxy, Path], shared_redis: RedisServer) -> None:
    proxy, _ = tls_proxy
    # Its alert may get lost when it hangs up on what it has not read.
    error = refusal(parse(f"redis://127.0.0.1:{proxy.port}"))
    assert "`rediss://`" in str(error.hint)
    # Redis takes the greeting of TLS for the beginning of a command and waits for its end.
    error = refusal(parse(f"rediss://127.0.0.1:{shared_redis.port}?ssl_cert_reqs=none"), timeout=0.5)
    assert "no answer to TLS within 0.5 s" in error.message
    assert "`redis://`" in str(error.hint)


# -- cost ------------------------------------------------------------------------------------------

_COST = """
import re, sys
sys.path.insert(0, sys.argv[1])
import devsup.errors, devsup.masking, devsup.records, _socket, select, errno, time, os

def private():
    with open("/proc/self/smaps_rollup") as file:
        return sum(map(int, re.findall(r"^Private_(?:Clean|Dirty): +(\\d+)", file.read(), re.M)))

before, loaded = private(), set(sys.modules)
from devsup.redis.address import parse
from devsup.redis.connection import Connection
print(private() - before, *sorted(set(sys.modules) - loaded))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            "devsup.redis.connection.Client(parse(URL), 9).call('PING')",
            "this Python cannot speak TLS; use a Python that has the module `ssl`",
        ),
        ("devsup.redis.client.sync(URL)", "a Python without the module `ssl`; use a Python that has it"),
    ],
)
def test_a_python_without_tls_says_so(spawn: Spawn, call: str, says: str) -> None:
    """Many of one's own making have no module `ssl`."""
    code = f"""if True:
        import sys
        sys.modules["ssl"] = sys.modules["_ssl"] = None
        import socket, devsup.redis.client, devsup.redis.connection
        from devsup.errors import DevsupError
        from devsup.redis.address import parse
        with socket.create_server(("127.0.0.1", 0)) as listener:
            URL = f"rediss://127.0.0.1:{{listener.getsockname()[1]}}"
            try:
                {call}
            except DevsupError as error:
                print(f"{{error}}; {{error.hint}}")
    """
    said, wrong = spawn(code).communicate(timeout=PATIENCE)
    assert says in said, wrong


def test_a_guard_pays_less_than_two_megabytes_for_it(spawn: Spawn) -> None:
    child = spawn(_COST, ROOT)
    out, err = child.communicate(timeout=PATIENCE)
    assert out, err
    private, *loaded = out.split()
    assert int(private) < 2048
    assert {one for one in loaded if not one.startswith("devsup")} <= {"_thread"}
