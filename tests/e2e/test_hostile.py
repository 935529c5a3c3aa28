#!/usr/bin/env -S python3 -B
"""Clients that mean no good, and clients that are too many: 100 MB of random and mutated frames, and 10,000
connections that do nothing. The broker neither ends nor grows, and serves others afterwards.

FLARE_HOSTILE_SIZE is the number of bytes and FLARE_HOSTILE_SEED the seed, which is printed. Under sanitizers there
are fewer idle connections, and bounds of memory, which the sanitizer uses itself, are left out."""
import os
import random
import resource
import selectors
import socket
import struct
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../interop"))
import flare_wire  # noqa: E402, pylint: disable=wrong-import-position
import msgpack  # noqa: E402, pylint: disable=wrong-import-position
import scene  # noqa: E402, pylint: disable=wrong-import-position
from flare_wire import NUMBERS  # noqa: E402, pylint: disable=wrong-import-position

PLAIN = os.environ.get("FLARE_FLAVOUR", "release") in ("release", "debug")
SIZE = int(os.environ.get("FLARE_HOSTILE_SIZE", 100000000))
SEED = int(os.environ.get("FLARE_HOSTILE_SEED", 1))
CONNECTIONS = 10000 if PLAIN else 1000

MEMORY_GROWTH_MAX = 256 << 20  # its pools and output buffers have come to 10 to 105 MiB, for 1.5 GB of input too
IDLE_SIZE_MAX = 8 << 10
TIMEOUT = 60
QUIET_S = 0.3  # a connection on which nothing happens for so long is over

FROM_BROKER = {NUMBERS[name] for name in ("welcome", "failure", "pong", "goodbye", "published", "pulled", "settled",
                                          "deliver", "ended", "configured")}
HELLO = flare_wire.frame(flare_wire.payload_encode("hello", 1, {"version": 1}))


# ---- what is sent ------------------------------------------------------------------------------

def valid_arrays(receipts):
    """Requests as a client would send them. Few configure, as that holds up what follows."""
    receipts = [[receipt] for receipt in receipts]
    return 8 * [
        [NUMBERS["ping"], 1],
        [NUMBERS["publish"], 1, "sink", False, b"k" * 16, [[b"body", "key", {"a": "b"}, 0, 0, "i"]]],
        [NUMBERS["publish"], 1, "sink", True, b"", [[b"x" * 200]] * 5],
        [NUMBERS["publish"], 1, "work", None, None, [[b"y", None, None, 5, 1000]]],
        [NUMBERS["pull"], 1, "work", "s", 10, 1000, 0, 100, "hostile"],
        [NUMBERS["ack"], 1, "work", "s", receipts],
        [NUMBERS["nack"], 1, "work", "s", 0, False, "no", receipts],
        [NUMBERS["nack"], 1, "work", "s", None, True, "no", receipts],
        [NUMBERS["extend"], 1, "work", "s", 1000, receipts],
        [NUMBERS["consume"], 4, "work", "s", 5, 1000, 100, "hostile"],
        [NUMBERS["credit"], 4, 1, 1000],
        [NUMBERS["cancel"], 4],
    ] + [
        [NUMBERS["hello"], 1, 1, "again"],
        [NUMBERS["topic_put"], 1, "work", 4, 0, 0, 1000, 0],
        [NUMBERS["sub_put"], 1, "work", "s", 100, 3, 0, 5, 1, 0],
    ]


# Values where another kind of value, or a bound, is expected.
STRANGE = [None, True, -1, 0, 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63), (1 << 64) - 1, 1.5, "", "x" * 256,
           "a/b", "\u00fc\x00", b"", b"\xff" * 65, b"z" * 5000, [], [[]], [1, 2], [[b"a"]] * 50, {}, {"a": 1},
           {"a": "b"}, {1: 2}, msgpack.ExtType(5, b"ext")]


def mutate_value(chance, value, depth=0):
    """A copy with one value somewhere in it replaced, dropped or doubled; not a message's number and id."""
    if isinstance(value, list) and value and (depth == 0 or chance.random() < 0.7):
        copy = list(value)
        if depth == 0 and len(copy) == 2:
            copy.append(None)
        index = chance.randrange(2 if depth == 0 else 0, len(copy))
        what = chance.random()
        if what < 0.1:
            del copy[index]
        elif what < 0.2:
            copy.insert(index, copy[index])
        else:
            copy[index] = mutate_value(chance, copy[index], depth + 1)
        return copy
    return chance.choice(STRANGE)


# Requests that are about one stream, and so have one id.
STREAMS = {NUMBERS["consume"], NUMBERS["credit"], NUMBERS["cancel"]}


def frames_block(chance, size, receipts):
    """Whole frames, half of them valid and half of them wrong in a value; none of them ends its connection."""
    arrays = valid_arrays(receipts)
    block = bytearray()
    while len(block) < size:
        array = list(chance.choice(arrays))
        if array[0] not in STREAMS:
            array[1] = chance.randrange(100, 1 << 30)
        if chance.random() < 0.5:
            array = mutate_value(chance, array)
        block += flare_wire.frame(msgpack.packb(array))
    return block


def damage(chance, block):
    """A copy with some bytes overwritten, cut out or put in, anywhere."""
    copy = bytearray(block)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(copy))
        what = chance.random()
        if what < 0.6:
            copy[place] = chance.randrange(256)
        elif what < 0.8:
            del copy[place:place + chance.randrange(1, 16)]
        else:
            copy[place:place] = os.urandom(chance.randrange(1, 16))
    return copy


def hostile_input(chance, block):
    """What one connection sends."""
    what = chance.random()
    if what < 0.05:
        return os.urandom(chance.randrange(1, 65536))
    if what < 0.1:
        return HELLO + os.urandom(chance.randrange(1, 65536))
    if what < 0.2:
        noise = b"".join(flare_wire.frame(os.urandom(chance.randrange(200))) for _ in range(100))
        return HELLO + noise
    start = chance.randrange(len(block) // 2)
    part = block[start:start + chance.randrange(len(block) // 2)] if what < 0.3 else block
    return HELLO + (damage(chance, part) if what < 0.7 else part)


# ---- sending it --------------------------------------------------------------------------------

class Attack:
    """A connection that sends all of its input, reads all answers, and closes when the broker has or when the
    answers to all that was sent are there as far as can be told."""

    LAST = 0xFFFFFFFF

    def __init__(self, address, data):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setblocking(False)
        self.data = memoryview(bytes(data) + flare_wire.frame(flare_wire.payload_encode("ping", self.LAST, {})))
        self.received = bytearray()
        self.codes = {}
        self.active = time.monotonic()

    def send(self):
        try:
            self.data = self.data[self.socket.send(self.data[:1 << 16]):]
            self.active = time.monotonic()
        except BlockingIOError:
            pass

    def receive(self):
        """False: the connection has ended."""
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return True
        self.received += data
        self.active = time.monotonic()
        return self.take_frames() and bool(data)

    def take_frames(self):
        place = 0
        goes_on = True
        while len(self.received) - place >= 4:
            size = struct.unpack_from(">I", self.received, place)[0]
            if len(self.received) - place - 4 < size:
                break
            array = msgpack.unpackb(self.received[place + 4:place + 4 + size], strict_map_key=False)
            if array[0] not in FROM_BROKER:
                raise AssertionError("the broker has sent %r" % array)
            if array[0] == NUMBERS["failure"]:
                self.codes[array[3]] = self.codes.get(array[3], 0) + 1
            goes_on = goes_on and array[1] != self.LAST
            place += 4 + size
        del self.received[:place]
        return goes_on

    def advance(self, events):
        """False: it is over."""
        try:
            if events & selectors.EVENT_WRITE:
                self.send()
            if events & selectors.EVENT_READ and not self.receive():
                return False
        except (ConnectionResetError, BrokenPipeError):
            return False
        return True


class Host(unittest.TestCase):
    """A broker of its own, with short waits."""

    longMessage = True

    def start(self, **settings):
        self.broker = scene.Broker(wait_max=10, log_level="error", **settings)
        self.addCleanup(self.broker.close)
        client = flare_wire.Client(self.broker.wire)
        self.addCleanup(client.close)
        client.topic_put("sink", shards=4)
        client.topic_put("work", shards=4)
        client.sub_put("work", "s")
        client.publish("work", [{"body": b"held"}] * 3)
        self.receipts = [delivery.receipt for delivery in client.pull("work", "s", max=3, lease_ms=3600000)]
        return client

    def expect_healthy(self, client):
        self.assertEqual(self.broker.request("GET", "/readyz")[0], 200)
        client.topic_put("after", shards=1)
        client.sub_put("after", "s")
        client.publish("after", [{"body": b"a"}])
        delivery, = client.pull("after", "s")
        self.assertEqual(client.ack("after", "s", [delivery.receipt]).count, 1)

    def expect_connections(self, count):
        """Closed connections are gone, as soon as the broker has noticed."""
        deadline = time.monotonic() + TIMEOUT
        while (is_open := self.broker.metric("flare_wire_connections_open")) != count:
            self.assertLess(time.monotonic(), deadline, "%d connections are open" % is_open)


class HostileTest(Host):
    """Clients that mean no good."""

    def attack(self, chance, size):
        """Sends so many bytes over eight connections at a time; how often each code was answered."""
        selector = selectors.DefaultSelector()
        codes = {}
        sent = 0
        block = frames_block(chance, 1 << 18, self.receipts)
        rounds = 0
        while sent < size or selector.get_map():
            while sent < size and len(selector.get_map()) < 8:
                rounds += 1
                if rounds % 64 == 0:
                    block = frames_block(chance, 1 << 18, self.receipts)
                data = hostile_input(chance, block)
                sent += len(data)
                attack = Attack(self.broker.wire, data)
                selector.register(attack.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, attack)
            for key, events in selector.select(0.1):
                if not key.data.advance(events):
                    self.end(selector, key.data, codes)
                elif not key.data.data and key.events & selectors.EVENT_WRITE:
                    selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
            # A damaged size may announce more than is sent, for which the broker waits.
            for key in list(selector.get_map().values()):
                if time.monotonic() > key.data.active + QUIET_S:
                    self.end(selector, key.data, codes)
        selector.close()
        return codes

    @staticmethod
    def end(selector, attack, codes):
        selector.unregister(attack.socket)
        attack.socket.close()
        for code, count in attack.codes.items():
            codes[code] = codes.get(code, 0) + count

    def test_frames(self):
        """Random and mutated frames are answered by failures; the broker stays as healthy and as large as it was."""
        client = self.start()
        chance = random.Random(SEED)
        self.attack(chance, SIZE // 10)
        before = self.broker.memory()
        taken = self.broker.metric("flare_wire_requests_total")
        started = time.monotonic()
        codes = self.attack(chance, SIZE)
        grown = self.broker.memory() - before
        taken = self.broker.metric("flare_wire_requests_total") - taken
        print("seed %d: %d bytes in %.1f s, %d frames taken; memory grew by %d KiB; failures %s" % (
            SEED, SIZE, time.monotonic() - started, taken, grown >> 10, dict(sorted(codes.items()))))
        self.expect_healthy(client)
        self.expect_connections(1)
        self.assertGreater(taken, SIZE // 2000, "the input is not what it is meant to be")
        self.assertEqual(set(codes) & {"internal", "io", "corrupt", "memory"}, set())
        if PLAIN:
            self.assertLess(grown, MEMORY_GROWTH_MAX)

    def test_promises(self):
        """A frame that is announced and not sent costs no memory."""
        client = self.start()
        self.attack(random.Random(SEED), 1000000)
        before = self.broker.memory()
        connections = [flare_wire.Connection(self.broker.wire) for _ in range(50)]
        for connection in connections:
            self.addCleanup(connection.close)
            largest = connection.hello("promise").frame_size_max
            connection.send_bytes(struct.pack(">I", largest) + b"\x96\x08\x01\xa4sink\xc2\xc0\xdd\x00\x01\x86\xa0")
        self.expect_connections(51)
        client.ping()
        grown = self.broker.memory() - before
        print("memory grew by %d KiB for 50 frames of %d bytes that do not come" % (grown >> 10, largest))
        if PLAIN:
            self.assertLess(grown, 50 * (128 << 10))
        self.expect_healthy(client)


class IdleTest(Host):
    """Connections that do nothing."""

    def test_idle(self):
        """An idle connection costs less than 8 KiB of the broker's memory."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        count = min(CONNECTIONS, hard - 500)
        client = self.start(wire_connections_max=CONNECTIONS + 100)
        warm = self.open_all(count // 10)
        before = self.broker.memory()
        connections = warm + self.open_all(count - len(warm))
        self.expect_connections(count + 1)
        each = (self.broker.memory() - before) // (count - len(warm))
        print("%d idle connections (of %d): %d bytes each" % (count, CONNECTIONS, each))
        self.expect_healthy(client)
        for connection in connections:
            connection.close()
        self.expect_connections(1)
        self.expect_healthy(client)
        if PLAIN:
            self.assertLess(each, IDLE_SIZE_MAX)

    def open_all(self, count):
        """Connections that have said hello and been answered."""
        connections = []
        for _ in range(count):
            connection = flare_wire.Connection(self.broker.wire)
            self.addCleanup(connection.close)
            connection.send_bytes(HELLO)
            connections.append(connection)
        for connection in connections:
            self.assertEqual(connection.receive()[0], "welcome")
        return connections


if __name__ == "__main__":
    unittest.main(verbosity=2)
