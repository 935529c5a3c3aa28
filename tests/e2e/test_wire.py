#!/usr/bin/env -S python3 -B
"""The wire protocol frame by frame, as SPEC.md's "Wire protocol" has it: what a client library would never send,
credit to the message and byte, and the errors. The rule of a test is its first sentence.

Of the codes a frame can hold these have a test here or in test_scenarios.py: invalid, not_found, exists, conflict,
lease_lost, too_large, idempotency_reused, not_atomic, busy, unavailable, no_space, timeout, aborted, not_implemented.
libflare itself says unknown, of what it must not send again; from the broker it is what became of messages on a
volume that failed meanwhile. The others no request reaches from outside: method, not_acceptable, unsupported_type,
headers_too_large and precondition are HTTP's; format and locked stop a start; moved, fenced and quota are kept for
later versions; a full map is answered as no_space; io and corrupt need damage to what is stored, and memory and
internal a fault of the broker's."""
import base64
import errno
import os
import re
import shutil
import signal
import struct
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../interop"))
import flare_wire  # noqa: E402, pylint: disable=wrong-import-position
import msgpack  # noqa: E402, pylint: disable=wrong-import-position
import scene  # noqa: E402, pylint: disable=wrong-import-position
from flare_wire import CODES, NUMBERS  # noqa: E402, pylint: disable=wrong-import-position

SUBSCRIPTION = "s"


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


class WireTest(unittest.TestCase):
    """A topic of one shard with a subscription, and a connection that has said hello."""

    longMessage = True
    broker_settings = {}

    @classmethod
    def setUpClass(cls):
        cls.broker = scene.Broker(**cls.broker_settings)

    @classmethod
    def tearDownClass(cls):
        cls.broker.close()

    def setUp(self):
        self.topic = self._testMethodName
        self.wire = self.open()
        self.ask("topic_put", topic=self.topic, shards=1)
        self.ask("sub_put", topic=self.topic, subscription=SUBSCRIPTION)

    def open(self, hello=True):
        connection = flare_wire.Connection(self.broker.wire)
        self.addCleanup(connection.close)
        if hello:
            self.welcome = connection.hello("test_wire.py")
        return connection

    # ---- asking and expecting

    def ask(self, name, request_id=1, wire=None, **values):
        """Sends a request and gives the answer that comes next, which must be its own."""
        wire = wire or self.wire
        wire.send(name, request_id, **values)
        answer, answer_id, fields = wire.receive()
        self.assertEqual(answer_id, request_id, (answer, fields))
        fields.name = answer
        return fields

    def send_array(self, array, wire=None):
        (wire or self.wire).send_bytes(flare_wire.frame(msgpack.packb(array)))

    def expect(self, name, request_id, wire=None):
        answer, answer_id, fields = (wire or self.wire).receive()
        self.assertEqual((answer, answer_id), (name, request_id), fields)
        return fields

    def expect_failure(self, code, request_id, wire=None):
        fields = self.expect("failure", request_id, wire)
        self.assertEqual((fields.slug, CODES[fields.code]), (code, code), fields.detail)
        self.assertNotEqual(fields.detail, "")
        return fields

    def expect_end(self, wire=None):
        """The broker closes, and sends nothing before."""
        with self.assertRaises(flare_wire.Lost):
            self.fail("received %s" % (self.wire if wire is None else wire).receive())

    def expect_alive(self, wire=None):
        self.assertEqual(self.ask("ping", 77, wire).name, "pong")

    def publish(self, *bodies):
        answer = self.ask("publish", 5000, topic=self.topic, messages=[{"body": body} for body in bodies])
        self.assertEqual([result.code for result in answer.results], [0] * len(bodies))

    def depths(self, subscription=SUBSCRIPTION):
        """Enqueued and leased."""
        _, document = self.broker.request("GET", "/v1/topics/%s/subscriptions/%s" % (self.topic, subscription))
        return document["enqueue_queue"]["depth"], document["delivery_queue"]["leased"]


class Page(unittest.TestCase):
    """flare_wire.py against the page it is written from."""

    def test_tables(self):
        """The client has the numbers, names, kinds and order of all that the page lists."""
        with open(os.path.join(os.environ["FLARE_SOURCE_DIR"], "SPEC.md"), encoding="utf-8") as file:
            text = file.read()
        text = text[text.index("### Wire messages"):text.index("<!-- docgen wire end -->")]
        codes = {int(number): name for number, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.M)}
        messages, records = {}, {}
        for block in re.split(r"^(?=\*\*\d|Record )", text, flags=re.M)[1:]:
            number, message, record = re.match(r"(?:\*\*(\d+) `(\w+)`|Record `(\w+)`)", block).groups()
            fields = [(name, kind.removeprefix("list of "))
                      for name, kind in re.findall(r"^\| `(\w+)` \| ([\w ]+?) \|", block, re.M)]
            if record:
                records[record] = fields
            else:
                messages[message] = (int(number), fields)
        self.assertEqual(messages, {name: (number, flare_wire.FIELDS[name]) for name, number in NUMBERS.items()})
        self.assertEqual(records, flare_wire.RECORD_FIELDS)
        self.assertEqual({0: "ok", **codes}, CODES)


class Begin(WireTest):
    """How a connection begins."""

    def test_welcome(self):
        """The broker answers hello with its version and limits."""
        wire = self.open(hello=False)
        wire.send("hello", 9, version=1, client="x")
        fields = self.expect("welcome", 9, wire)
        self.assertEqual(fields.version, 1)
        self.assertEqual((fields.message_size_max, fields.batch_messages_max, fields.pull_messages_max,
                          fields.pull_size_max, fields.wait_max_ms), (1 << 20, 10000, 10000, 16 << 20, 20000))
        self.assertGreater(fields.frame_size_max, fields.message_size_max)
        self.assertGreater(min(fields.window_requests, fields.window_size), 0)

    def test_version_lower(self):
        """The version of a connection is the lower of both sides' greatest."""
        wire = self.open(hello=False)
        wire.send("hello", 1, version=4000000000)
        self.assertEqual(self.expect("welcome", 1, wire).version, 1)
        self.expect_alive(wire)

    def test_version_none(self):
        """There is no version 0: hello is refused and the connection closed."""
        wire = self.open(hello=False)
        wire.send("hello", 1, version=0)
        self.expect_failure("invalid", 0, wire)
        self.expect_end(wire)

    def test_hello_missing(self):
        """A first frame that is not hello ends the connection."""
        wire = self.open(hello=False)
        wire.send("ping", 1)
        self.expect_failure("invalid", 0, wire)
        self.expect_end(wire)

    def test_hello_again(self):
        """A second hello is refused, and the connection goes on."""
        self.wire.send("hello", 3, version=1)
        self.expect_failure("invalid", 3)
        self.expect_alive()

    def test_hello_large(self):
        """A hello of more than 4 KiB ends the connection, before it has arrived."""
        wire = self.open(hello=False)
        wire.send_bytes(struct.pack(">I", 4097))
        self.expect_failure("too_large", 0, wire)
        self.expect_end(wire)

    def test_http(self):
        """A client that speaks HTTP is told that it is wrong here."""
        wire = self.open(hello=False)
        wire.send_bytes(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.expect_failure("too_large", 0, wire)
        self.expect_end(wire)


class BeginLate(WireTest):
    """A client has a time in which to say hello."""

    broker_settings = {"http_header_timeout": "1s"}

    def test_hello_late(self):
        """A client that says nothing, or only half of its hello, is cut; one that has said it is not."""
        silent = self.open(hello=False)
        half = self.open(hello=False)
        half.send_bytes(b"\x00\x00\x00\x10\x93")
        for wire in (silent, half):
            self.expect_failure("timeout", 0, wire)
            self.expect_end(wire)
        self.expect_alive()


class Frames(WireTest):
    """What is a frame, and what is none."""

    def test_widths(self):
        """Numbers may have any width, and strings and binaries any form of their length."""
        raw = (b"\x97\xd3" + struct.pack(">q", NUMBERS["pull"]) + b"\xcf" + struct.pack(">Q", 7)
               + b"\xdb" + struct.pack(">I", len(self.topic)) + self.topic.encode()
               + b"\xd9\x01s" + b"\xcd\x00\x05" + b"\xce\x00\x00\x00\x00" + b"\xc0")
        self.wire.send_bytes(flare_wire.frame(raw))
        self.assertEqual(self.expect("pulled", 7).deliveries, [])

    def test_text_for_binary(self):
        """Where a binary is wanted a string is taken."""
        self.send_array([NUMBERS["publish"], 7, self.topic, False, "key", [["text"]]])
        self.assertEqual(self.expect("published", 7).results[0].code, 0)
        self.assertEqual(self.ask("pull", topic=self.topic, subscription=SUBSCRIPTION, max=1).deliveries[0].body,
                         b"text")

    def test_fields_beyond(self):
        """Fields beyond those that are known are passed over, in messages and in records."""
        self.send_array([NUMBERS["ping"], 7, {"new": [1, 2]}, None])
        self.expect("pong", 7)
        self.send_array([NUMBERS["publish"], 8, self.topic, None, None,
                         [[b"b", None, None, None, None, None, "new", 3.5]], "new"])
        self.assertEqual(self.expect("published", 8).results[0].code, 0)

    def test_fields_wrong(self):
        """A wrong field fails its request and nothing else, and the failure names it."""
        receipt = [[b"r"]]
        for name, fields, field in (
                ("pull", [self.topic, SUBSCRIPTION], "max"),
                ("pull", [self.topic, SUBSCRIPTION, 0], "max"),
                ("pull", [self.topic, SUBSCRIPTION, 10001], "max"),
                ("pull", [self.topic, SUBSCRIPTION, -1], "max"),
                ("pull", [self.topic, SUBSCRIPTION, "1"], "max"),
                ("pull", [self.topic, SUBSCRIPTION, 1.0], "max"),
                ("pull", [self.topic, SUBSCRIPTION, 1, 1 << 32], "max_bytes"),
                ("pull", [self.topic, SUBSCRIPTION, 1, 0, 86400001], "wait_ms"),
                ("pull", [self.topic, SUBSCRIPTION, 1, 0, 0, 1], "lease_ms"),
                ("pull", [self.topic, SUBSCRIPTION, 1, 0, 0, 0, "a\nb"], "consumer"),
                ("pull", [self.topic, "a b", 1], "subscription"),
                ("pull", [b"\xff", SUBSCRIPTION, 1], "topic"),
                ("pull", [None, SUBSCRIPTION, 1], "topic"),
                ("pull", [], "topic"),
                ("publish", [self.topic, False, b"k" * 65, [[b"b"]]], "batch_key"),
                ("publish", [self.topic, 1, b"", [[b"b"]]], "atomic"),
                ("publish", [self.topic, False, b"", 3], "messages"),
                ("publish", [self.topic, False, b"", []], "messages"),
                ("publish", [self.topic, False, b"", [3]], "messages"),
                ("publish", [self.topic, False, b"", [[]]], "body"),
                ("publish", [self.topic, False, b"", [[b"b"], [b"b", 7]]], "messages[1].key"),
                ("publish", [self.topic, False, b"", [[b"b", "k", {"a": 1}]]], "attributes"),
                ("publish", [self.topic, False, b"", [[b"b", "k", {"a": "1", "b": "2" * 32768}]]], "attributes"),
                ("ack", [self.topic, SUBSCRIPTION, []], "receipts"),
                ("ack", [self.topic, SUBSCRIPTION, [[b"r" * 65]]], "receipt"),
                ("nack", [self.topic, SUBSCRIPTION, 5, True, "", receipt], "reject"),
                ("nack", [self.topic, SUBSCRIPTION, None, True, "r" * 1025, receipt], "reason"),
                ("extend", [self.topic, SUBSCRIPTION, 43200001, receipt], "lease_ms"),
                ("topic_put", [self.topic, 0, 1], "retention_ms"),
                ("topic_put", [self.topic, 0, 0, 0, None, 2], "durability"),
                ("sub_put", [self.topic, SUBSCRIPTION, 0, None, 0, 0, 3], "start")):
            with self.subTest(message=name, fields=str(fields)[:80]):
                self.send_array([NUMBERS[name], 7] + fields)
                self.assertIn(field, self.expect_failure("invalid", 7).detail)
                self.expect_alive()
        self.assertEqual(self.depths(), (0, 0))

    def test_numbers_unknown(self):
        """A message of an unknown number is not implemented."""
        for number in (0, 7, 21, 23, 27, 255, 1 << 32):
            with self.subTest(number=number):
                self.send_array([number, 7])
                self.expect_failure("not_implemented", 7)
        self.expect_alive()

    def test_numbers_of_broker(self):
        """A message that brokers send is refused from a client."""
        for name in ("welcome", "failure", "pong", "goodbye", "published", "pulled", "settled", "deliver", "ended",
                     "configured"):
            with self.subTest(name=name):
                self.send_array([NUMBERS[name], 7])
                self.expect_failure("invalid", 7)
        self.expect_alive()

    def test_frames_malformed(self):
        """What is no frame ends the connection, with a failure whose id is 0."""
        for payload in (b"", b"\xc1", b"\x05", b"\x80", b"\x90", b"\x91\x04", msgpack.packb([4, None]),
                        msgpack.packb([4, -1]), msgpack.packb([4, 0]), msgpack.packb(["ping", 1]),
                        msgpack.packb([4, "1"]), msgpack.packb([4, (1 << 64) - 1])[:-1],
                        b"\xdd\xff\xff\xff\xff\x04\x01", b"\x93\x04\x01"):
            with self.subTest(payload=payload[:24].hex()):
                wire = self.open()
                wire.send_bytes(flare_wire.frame(payload))
                self.expect_failure("invalid", 0, wire)
                self.expect_end(wire)
        self.expect_alive()

    def test_frames_wrong(self):
        """What is wrong behind its number and id is a request that fails, and the connection goes on."""
        for payload in (b"\x92\x04\x01\x00", b"\x93\x04\x01\xc6\xff\xff\xff\xff", b"\x93\x04\x01\xc1",
                        msgpack.packb([4, 1, nested(17)]), b"\x93\x08\x01" + b"\x91" * 1000,
                        b"\x93\x04\x01\xdf\xff\xff\xff\xff", b"\x93\x04\x01\xa4\xff"):
            with self.subTest(payload=payload[:24].hex()):
                self.wire.send_bytes(flare_wire.frame(payload))
                self.expect_failure("invalid", 1)
                self.expect_alive()

    def test_frame_pieces(self):
        """A frame may arrive in any pieces, and many may arrive at once."""
        data = b"".join(flare_wire.frame(msgpack.packb([NUMBERS["ping"], number])) for number in range(1, 5))
        for index in range(len(data)):
            self.wire.send_bytes(data[index:index + 1])
        self.assertEqual([self.wire.receive()[1] for _ in range(4)], [1, 2, 3, 4])

    def test_frame_large(self):
        """A frame that is larger than the limit ends the connection, before it has arrived."""
        self.wire.send_bytes(struct.pack(">I", self.welcome.frame_size_max + 1))
        self.expect_failure("too_large", 0)
        self.expect_end()

    def test_frame_largest(self):
        """A frame as large as the limit is taken."""
        head = msgpack.packb([NUMBERS["ping"], 7, 0])[:-1]
        size = self.welcome.frame_size_max - len(head) - 5
        self.wire.send_bytes(flare_wire.frame(head + b"\xc6" + struct.pack(">I", size) + bytes(size)))
        self.expect("pong", 7)

    def test_message_large(self):
        """A message larger than the limit is refused, and its connection goes on."""
        answer = self.ask("publish", topic=self.topic, messages=[{"body": bytes((1 << 20) + 1)}])
        self.assertEqual((answer.name, answer.slug), ("failure", "too_large"))
        self.publish(bytes(1 << 20))

    def test_close_within(self):
        """A client may close at any time, within a frame too."""
        wire = self.open()
        wire.send_bytes(b"\x00\x00\x00\x10\x93\x08")
        wire.close()
        self.expect_alive()


class Ids(WireTest):
    """Requests are numbered by their client."""

    def test_ids_pipelined(self):
        """Every request is answered under its own id, however many are sent before the first answer is read."""
        for number in range(1, 301):
            self.wire.send("publish", number, topic=self.topic, messages=[{"body": b"%d" % number}])
        answers = {self.wire.receive()[1]: index for index in range(300)}
        self.assertEqual(set(answers), set(range(1, 301)))
        pulled = self.ask("pull", topic=self.topic, subscription=SUBSCRIPTION, max=1000).deliveries
        self.assertEqual([delivery.body for delivery in pulled], [b"%d" % number for number in range(1, 301)])

    def test_id_in_use(self):
        """An id that is not yet answered cannot be used for another request; then it can."""
        self.wire.send("pull", 7, topic=self.topic, subscription=SUBSCRIPTION, max=1, wait_ms=20000)
        self.wire.send("ping", 7)
        self.expect_failure("conflict", 7)
        self.publish_elsewhere(b"a")
        self.assertEqual(len(self.expect("pulled", 7).deliveries), 1)
        self.assertEqual(self.ask("ping", 7).name, "pong")

    def test_id_of_stream(self):
        """A stream has its id until it has ended."""
        self.wire.send("consume", 7, topic=self.topic, subscription=SUBSCRIPTION)
        self.wire.send("ping", 7)
        self.expect_failure("conflict", 7)
        self.wire.send("cancel", 7)
        self.expect("ended", 7)
        self.assertEqual(self.ask("ping", 7).name, "pong")

    def publish_elsewhere(self, *bodies):
        self.ask("publish", 1, self.open(), topic=self.topic, messages=[{"body": body} for body in bodies])

    def test_window(self):
        """Pulls that wait leave a place in the window: the last one is answered at once, and reading goes on."""
        window = self.welcome.window_requests
        for number in range(1, window + 1):
            self.wire.send("pull", number, topic=self.topic, subscription=SUBSCRIPTION, max=1, wait_ms=20000)
        self.wire.send("ping", window + 1)
        self.assertEqual(self.expect("pulled", window).deliveries, [])
        self.expect("pong", window + 1)
        self.publish_elsewhere(b"a")
        name, number, _ = self.wire.receive()
        self.assertEqual(name, "pulled")
        self.assertLess(number, window)

    def test_pull_gone(self):
        """What a pull was to be given when its client went is delivered without counting an attempt."""
        wire = self.open()
        wire.send("pull", 1, topic=self.topic, subscription=SUBSCRIPTION, max=10, wait_ms=20000)
        self.assertEqual(self.ask("ping", 2, wire).name, "pong")
        wire.close()
        self.publish(b"a")
        pulled = self.ask("pull", topic=self.topic, subscription=SUBSCRIPTION, max=1, wait_ms=20000).deliveries
        self.assertEqual([(delivery.body, delivery.attempt) for delivery in pulled], [(b"a", 1)])


    def test_pull_refused(self):
        """A pull that is refused counts no longer: it once made the next one divide by zero pulls."""
        for number in range(1, 4):
            self.wire.send("pull", number, topic=self.topic, subscription="nobody", max=1)
            self.expect_failure("not_found", number)
        self.assertEqual(self.ask("pull", topic=self.topic, subscription=SUBSCRIPTION, max=1).deliveries, [])


class BatchKeys(WireTest):
    """Whole requests that are idempotent."""

    def send_batch(self, bodies, key=b"k", wire=None, **options):
        return self.ask("publish", 3, wire, topic=self.topic, batch_key=key,
                        messages=[{"body": body} for body in bodies], **options)

    def test_batch_replayed(self):
        """The same request under its batch key gives the first results again, over any connection."""
        for atomic in (False, True):
            with self.subTest(atomic=atomic):
                key = b"atomic" if atomic else b"plain"
                first = self.send_batch([b"a", b"b"], key, atomic=atomic)
                again = self.send_batch([b"a", b"b"], key, self.open(), atomic=atomic)
                self.assertEqual([result.replayed for result in first.results], [False, False])
                self.assertEqual([result.replayed for result in again.results], [True, True])
                self.assertEqual([result.id for result in first.results], [result.id for result in again.results])
        self.assertEqual(self.depths(), (4, 0))

    def test_batch_reused(self):
        """Other messages under a batch key are refused."""
        self.send_batch([b"a", b"b"])
        for bodies in ([b"a", b"c"], [b"a"], [b"a", b"b", b"c"], [b"b", b"a"]):
            with self.subTest(bodies=bodies):
                answer = self.send_batch(bodies)
                codes = {answer.slug} if answer.name == "failure" else {CODES[result.code]
                                                                         for result in answer.results}
                self.assertEqual(codes, {"idempotency_reused"})
        self.assertEqual(self.depths(), (2, 0))

    def test_batch_one_shard(self):
        """Messages without a key go to one shard that the batch key chooses."""
        self.topic += "-16"
        self.ask("topic_put", topic=self.topic, shards=16)
        shards = set()
        for number in range(32):
            answer = self.send_batch([b"a"] * 5, b"key-%d" % number)
            self.assertEqual(len({result.shard for result in answer.results}), 1)
            shards.add(answer.results[0].shard)
        self.assertGreater(len(shards), 1)

    def test_batch_keyed(self):
        """A batch over many shards and volumes is replayed as a whole."""
        self.topic += "-64"
        self.ask("topic_put", topic=self.topic, shards=64)
        batch = [{"body": b"%d" % number, "key": "key-%d" % number} for number in range(200)]
        first = self.ask("publish", topic=self.topic, batch_key=b"k", messages=batch)
        again = self.ask("publish", topic=self.topic, batch_key=b"k", messages=batch)
        self.assertEqual([result.id for result in first.results], [result.id for result in again.results])
        self.assertEqual({result.replayed for result in again.results}, {True})

    def test_batch_empty_key(self):
        """An empty batch key is none."""
        self.send_batch([b"a"], b"")
        self.send_batch([b"a"], b"")
        self.assertEqual(self.depths(), (2, 0))


class Streams(WireTest):
    """Credit streams, to the message and byte."""

    def consume(self, messages, bytes, wire=None, **options):
        (wire or self.wire).send("consume", 7, topic=self.topic, subscription=SUBSCRIPTION, messages=messages,
                                 bytes=bytes, **options)

    def take(self, count, wire=None):
        """The next deliveries of the stream, which must be so many."""
        deliveries = []
        while len(deliveries) < count:
            deliveries += self.expect("deliver", 7, wire).deliveries
        self.assertEqual(len(deliveries), count)
        return deliveries

    def barrier(self):
        """All that the broker had to send before is sent: the answer to a pull of something else comes next."""
        other = self.topic + "-barrier"
        self.ask("topic_put", 8, topic=other, shards=1)
        self.ask("sub_put", 8, topic=other, subscription=SUBSCRIPTION)
        self.ask("publish", 8, topic=other, messages=[{"body": b"x"}])
        self.assertEqual(len(self.ask("pull", 8, topic=other, subscription=SUBSCRIPTION, max=1).deliveries), 1)

    def cancel(self):
        self.wire.send("cancel", 7)
        self.assertEqual(self.expect("ended", 7).code, 0)

    def test_credit_messages(self):
        """No message is delivered or leased beyond the message credit, and every one within it is."""
        self.publish(*[b"%d" % number for number in range(10)])
        self.consume(3, 1 << 20)
        self.assertEqual([delivery.body for delivery in self.take(3)], [b"0", b"1", b"2"])
        self.barrier()
        self.assertEqual(self.depths(), (7, 3))
        self.wire.send("credit", 7, messages=2)
        self.assertEqual([delivery.body for delivery in self.take(2)], [b"3", b"4"])
        self.barrier()
        self.assertEqual(self.depths(), (5, 5))
        self.cancel()

    def test_credit_bytes(self):
        """Nothing is leased once the byte credit is used up; the last message may go beyond it, which is owed."""
        self.publish(*[b"%03d" % number + bytes(97) for number in range(10)])
        self.consume(100, 250)
        self.take(3)
        self.barrier()
        self.assertEqual(self.depths(), (7, 3))
        self.wire.send("credit", 7, bytes=50)
        self.barrier()
        self.assertEqual(self.depths(), (7, 3))
        self.wire.send("credit", 7, bytes=1)
        self.assertEqual(self.take(1)[0].body[:3], b"003")
        self.barrier()
        self.assertEqual(self.depths(), (6, 4))
        self.cancel()

    def test_credit_bytes_counted(self):
        """Keys and attributes count in the byte credit as bodies do, an attribute with 4 bytes more."""
        batch = [{"body": b"bb", "key": "kkkk", "attributes": {"aaaa": "vv"}}] * 4
        self.ask("publish", topic=self.topic, messages=batch)
        self.consume(100, 32)
        self.take(2)
        self.barrier()
        self.assertEqual(self.depths(), (2, 2))
        self.wire.send("credit", 7, bytes=1)
        self.take(1)
        self.barrier()
        self.assertEqual(self.depths(), (1, 3))
        self.cancel()

    def test_credit_none(self):
        """Without either credit nothing is leased."""
        self.publish(b"a")
        for messages, size in ((0, 0), (5, 0), (0, 5)):
            self.consume(messages, size)
            self.barrier()
            self.assertEqual(self.depths(), (1, 0))
            self.cancel()

    def test_credit_first(self):
        """The first message comes whatever its size."""
        self.publish(bytes(100000))
        self.consume(1, 1)
        self.take(1)
        self.cancel()

    def test_credit_before(self):
        """Credit granted before there is a message serves those that come."""
        self.consume(2, 1000)
        self.wire.send("credit", 7, messages=1)
        self.barrier()
        elsewhere = self.open()
        for number in range(5):
            self.ask("publish", 1, elsewhere, topic=self.topic, messages=[{"body": b"%d" % number}])
        self.take(3)
        self.barrier()
        self.assertEqual(self.depths(), (2, 3))
        self.cancel()

    def test_credit_much(self):
        """Credit beyond 2^30 is cut to that, and does not overflow."""
        self.consume(1 << 30, 1 << 30)
        for _ in range(8):
            self.wire.send("credit", 7, messages=1 << 30, bytes=1 << 30)
        self.barrier()
        self.ask("publish", 1, self.open(), topic=self.topic, messages=[{"body": b"a"}])
        self.take(1)
        self.cancel()

    def test_credit_of_nobody(self):
        """Credit and cancel of a stream that has ended are passed over, as they may have crossed with its end."""
        self.wire.send("credit", 99, messages=1)
        self.wire.send("cancel", 99)
        self.expect_alive()

    def test_stream_stalled(self):
        """What a stalled stream was not granted is there for others, on its own connection too."""
        self.publish(b"a", b"b")
        self.consume(1, 1000)
        self.take(1)
        self.assertEqual([delivery.body for delivery in self.ask(
            "pull", topic=self.topic, subscription=SUBSCRIPTION, max=10).deliveries], [b"b"])
        self.cancel()

    def test_stream_lease(self):
        """A stream's own lease holds instead of the subscription's, and what is lost is delivered again."""
        self.publish(b"a")
        self.consume(2, 1000, lease_ms=100)
        first, = self.take(1)
        second, = self.take(1)
        self.assertEqual((first.attempt, second.attempt), (1, 2))
        answer = self.ask("ack", topic=self.topic, subscription=SUBSCRIPTION, receipts=[{"receipt": first.receipt}])
        self.assertEqual((answer.count, [CODES[record.code] for record in answer.codes]), (0, ["lease_lost"]))

    def test_stream_cancelled(self):
        """After its end a stream delivers nothing; what it had delivered stays leased."""
        self.publish(b"a", b"b")
        self.consume(1, 1000)
        held = self.take(1)
        self.cancel()
        self.barrier()
        self.assertEqual(self.depths(), (1, 1))
        answer = self.ask("ack", topic=self.topic, subscription=SUBSCRIPTION,
                          receipts=[{"receipt": held[0].receipt}])
        self.assertEqual(answer.count, 1)

    def test_stream_deleted(self):
        """A stream ends when its subscription or its topic is deleted."""
        for path in ("/v1/topics/%s/subscriptions/%s", "/v1/topics/%s"):
            self.ask("sub_put", topic=self.topic, subscription=SUBSCRIPTION)
            self.consume(1, 1000)
            self.expect_alive()
            self.broker.request("DELETE", path % ((self.topic, SUBSCRIPTION)[:path.count("%")]))
            fields = self.expect("ended", 7)
            self.assertEqual((CODES[fields.code], fields.slug), ("not_found", "not_found"))

    def test_stream_not_found(self):
        """A stream of what does not exist is refused."""
        for topic, subscription in ((self.topic, "nobody"), ("nowhere", SUBSCRIPTION)):
            self.wire.send("consume", 7, topic=topic, subscription=subscription, messages=1, bytes=1)
            self.expect_failure("not_found", 7)
        self.expect_alive()

    def test_stream_paused(self):
        """A stream of a paused subscription is given nothing until it is resumed."""
        path = "/v1/topics/%s/subscriptions/%s" % (self.topic, SUBSCRIPTION)
        self.assertEqual(self.broker.request("POST", path + "/pause")[0], 200)
        self.publish(b"a")
        self.consume(1, 1000)
        self.barrier()
        self.assertEqual(self.depths(), (1, 0))
        self.assertEqual(self.broker.request("POST", path + "/resume")[0], 200)
        self.take(1)
        self.cancel()

    def test_stream_gone(self):
        """What was sent to a client that has gone stays leased, and can be settled over another connection."""
        self.publish(b"a", b"b")
        wire = self.open()
        self.consume(1, 1000, wire)
        held = self.take(1, wire)
        wire.close()
        answer = self.ask("ack", topic=self.topic, subscription=SUBSCRIPTION,
                          receipts=[{"receipt": held[0].receipt}])
        self.assertEqual(answer.count, 1)
        self.assertEqual(self.depths(), (1, 0))

    def test_receipt_over_http(self):
        """A receipt is the same over HTTP, as base64url text."""
        self.publish(b"a")
        self.consume(1, 1000)
        receipt = base64.urlsafe_b64encode(self.take(1)[0].receipt).rstrip(b"=").decode()
        status, document = self.broker.request("POST", "/v1/topics/%s/subscriptions/%s/ack" % (
            self.topic, SUBSCRIPTION), {"receipts": [receipt]})
        self.assertEqual((status, document), (200, {"acked": 1}))
        self.cancel()


class Waiters(WireTest):
    """So many pulls and streams may wait, and no more."""

    broker_settings = {"waiters_max": 2}

    def test_waiters(self):
        """Beyond that a pull is answered at once, and a stream is refused."""
        for number in (1, 2):
            self.wire.send("consume", number, topic=self.topic, subscription=SUBSCRIPTION, messages=1, bytes=1)
        while self.broker.request("GET", "/v1/status")[1]["waiting_pulls"] < 2:
            self.expect_alive()
        self.assertEqual(self.ask("pull", 3, topic=self.topic, subscription=SUBSCRIPTION, max=1,
                                  wait_ms=20000).deliveries, [])
        self.wire.send("consume", 4, topic=self.topic, subscription=SUBSCRIPTION, messages=1, bytes=1)
        self.assertTrue(self.expect_failure("busy", 4).retryable)


class Stopping(WireTest):
    """How a broker takes its leave."""

    def test_goodbye(self):
        """A stopping broker answers waiting pulls, ends streams, says goodbye and closes."""
        self.wire.send("pull", 7, topic=self.topic, subscription=SUBSCRIPTION, max=1, wait_ms=20000)
        self.wire.send("consume", 8, topic=self.topic, subscription=SUBSCRIPTION, messages=1, bytes=1)
        self.expect_alive()
        stopping = threading.Thread(target=self.broker.stop, args=(signal.SIGTERM,))
        stopping.start()
        received = {}
        with self.assertRaises(flare_wire.Lost):
            while True:
                name, number, fields = self.wire.receive()
                received[(name, number)] = getattr(fields, "slug", "")
        stopping.join()
        self.assertEqual(received, {("goodbye", 0): "", ("failure", 7): "unavailable", ("ended", 8): "unavailable"})


class Quota(WireTest):
    """A full broker refuses to publish and nothing else."""

    broker_settings = {"quota": "16m", "disk_reserve": 0, "volumes": 1}

    def test_no_space(self):
        """Publishing fails with no_space, retryable and not before a time; acknowledging still works."""
        answer = None
        for number in range(64):
            answer = self.ask("publish", topic=self.topic, messages=[{"body": os.urandom(1 << 19)}])
            if answer.name == "failure" or answer.results[0].code != 0:
                break
        self.assertEqual((answer.name, answer.slug, answer.retryable), ("failure", "no_space", True))
        self.assertGreater(answer.retry_after_ms, 0)
        pulled = self.ask("pull", topic=self.topic, subscription=SUBSCRIPTION, max=1).deliveries
        answer = self.ask("ack", topic=self.topic, subscription=SUBSCRIPTION,
                          receipts=[{"receipt": pulled[0].receipt}])
        self.assertEqual(answer.count, 1)


class Connections(WireTest):
    """So many connections may be open, and no more."""

    broker_settings = {"wire_connections_max": 2}

    def test_connections(self):
        """Beyond that a connection is told so and closed."""
        self.open()
        wire = self.open(hello=False)
        self.expect_failure("busy", 0, wire)
        self.expect_end(wire)


class SmallMap(WireTest):
    """A volume whose file may not grow."""

    broker_settings = {"map_size": "1m", "map_size_max": "1m", "disk_reserve": 0, "volumes": 1}

    def test_map_full(self):
        """Publishing fails as it does on a full disk; acknowledging still works."""
        answer = None
        for _ in range(64):
            answer = self.ask("publish", topic=self.topic, messages=[{"body": os.urandom(1 << 16)}])
            if answer.name == "failure":
                break
        self.assertEqual((answer.name, answer.slug, answer.retryable), ("failure", "no_space", True))
        pulled = self.ask("pull", topic=self.topic, subscription=SUBSCRIPTION, max=1).deliveries
        answer = self.ask("ack", topic=self.topic, subscription=SUBSCRIPTION,
                          receipts=[{"receipt": pulled[0].receipt}])
        self.assertEqual(answer.count, 1)


class FailingDisk(WireTest):
    """A disk that fails, played inside of the broker by fault_preload.c (see fault_control.h)."""

    FILE_SIZE, FLUSH_ERROR, SIZE = 64, 72, 84

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="flare-faults-")
        cls.control = os.path.join(cls.directory, "control")
        with open(cls.control, "wb") as file:
            file.write(b"volume-0".ljust(cls.SIZE, b"\0"))
        preload = os.path.join(os.environ["FLARE_BUILD_DIR"], "tests/e2e/fault_preload.so")
        options = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        cls.broker = scene.Broker({"LD_PRELOAD": preload, "FLARE_FAULT_CONTROL": cls.control,
                                   "ASAN_OPTIONS": options}, volumes=1)

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.directory)

    def test_flush_fails(self):
        """A publish whose flush fails is never confirmed; from then on the volume is unavailable."""
        self.publish(b"a")
        with open(self.control, "r+b") as file:
            file.seek(self.FLUSH_ERROR)
            file.write(struct.pack("=i", errno.EIO))
        for number, codes in ((2, ("unknown", "unavailable")), (3, ("unavailable",))):
            answer = self.ask("publish", number, topic=self.topic, messages=[{"body": b"b"}])
            self.assertEqual((answer.name, answer.retryable), ("failure", True), answer)
            self.assertIn(answer.slug, codes)
        self.assertEqual(self.broker.request("GET", "/readyz")[0], 503)


if __name__ == "__main__":
    unittest.main(verbosity=2)
