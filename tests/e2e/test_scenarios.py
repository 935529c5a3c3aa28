#!/usr/bin/env -S python3 -B
"""What every client must do alike, as scenarios that each of them runs: the independent one in Python, and
libflare blocking, asynchronous, and with the broker in its own process. tests/interop/scene.py says how they are
driven. The rule of a scenario is its first sentence."""
import os
import signal
import sys
import unittest

INTEROP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../interop")
sys.path.insert(0, INTEROP)
import scene  # noqa: E402, pylint: disable=wrong-import-position
from scene import Refused  # noqa: E402, pylint: disable=wrong-import-position

NEVER_MS = 3600000
SUBSCRIPTION = "s"


def text(body):
    return body.encode().hex()


def message(body, **fields):
    return dict(fields, body=text(body))


def messages(count, **fields):
    return [message("m%d" % index, **fields) for index in range(count)]


def bodies(answer):
    return [bytes.fromhex(delivery["body"]).decode() for delivery in answer["deliveries"]]


def receipts(answer):
    return [delivery["receipt"] for delivery in answer["deliveries"]]


def settings(**values):
    """The scenario runs on a broker of its own with these settings."""
    def mark(method):
        method.settings = values
        return method
    return mark


class Scenario(unittest.TestCase):
    """A broker with a topic of one shard and a subscription, and a client connected to it."""

    longMessage = True
    driver_command = None
    shared = None  # the broker of all scenarios that do not ask for one of their own

    @classmethod
    def tearDownClass(cls):
        if cls.shared is not None:
            cls.shared.close()
            cls.shared = None

    def setUp(self):
        own = getattr(getattr(self, self._testMethodName), "settings", None)
        self.connect(own)
        self.topic = self._testMethodName
        self.client.topic_put(topic=self.topic, shards=1)
        self.client.sub_put(topic=self.topic, subscription=SUBSCRIPTION)

    def connect(self, own):
        """A broker, a proxy before it, and a client that is connected through it."""
        self.client = scene.Driver(self.driver_command)
        self.broker = self.open_broker(own)
        self.addCleanup(self.client.close)
        self.proxy = scene.Proxy(self.broker)
        self.addCleanup(self.proxy.close)
        self.client.connect(url=self.proxy.address)

    def open_broker(self, own):
        if own is not None:
            broker = scene.Broker(**own)
            self.addCleanup(broker.close)
            return broker
        if self.shared is None:
            type(self).shared = scene.Broker()
        return self.shared

    # ---- what scenarios say

    def publish(self, *list_of_messages, **options):
        return self.client.publish(topic=self.topic, messages=list(list_of_messages), **options)["results"]

    def pull(self, max=10, wait_ms=0, **options):
        return self.client.pull(topic=self.topic, subscription=SUBSCRIPTION, max=max, wait_ms=wait_ms, **options)

    def pull_waiting(self, **options):
        """Waits for something to come, whenever that is."""
        return self.pull(wait_ms=20000, **options)

    def settle(self, kind, list_of_receipts, **options):
        return self.client.settle(kind=kind, topic=self.topic, subscription=SUBSCRIPTION,
                                  receipts=list_of_receipts, **options)

    def ack(self, answer):
        return self.settle("ack", receipts(answer))

    def refused(self, code, function, *arguments, **options):
        with self.assertRaises(Refused) as caught:
            function(*arguments, **options)
        self.assertEqual(caught.exception.code, code, caught.exception)
        return caught.exception.answer

    def path(self, rest=""):
        return "/v1/topics/%s/subscriptions/%s%s" % (self.topic, SUBSCRIPTION, rest)

    def depths(self):
        """Enqueued, leased, scheduled, dead."""
        _, document = self.broker.request("GET", self.path())
        queue = document["delivery_queue"]
        return document["enqueue_queue"]["depth"], queue["leased"], queue["scheduled"], queue["dead"]

    def dead(self):
        _, document = self.broker.request("GET", self.path("/messages?state=dead"))
        return [(item["body"], item["reason"], item.get("note")) for item in document["items"]]


class CommonScenarios:
    """For every client."""

    # ---- publishing

    def test_publish_one(self):
        """A message is delivered with all that it was published with."""
        result, = self.publish(message("hello", key="k", attributes={"a": "1", "b": "\u00fc"}))
        self.assertRegex(result["id"], "^[0-9a-f]{24}$")
        self.assertFalse(result["replayed"])
        answer = self.pull()
        delivery, = answer["deliveries"]
        self.assertEqual(bodies(answer), ["hello"])
        self.assertEqual((delivery["id"], delivery["shard"], delivery["sequence"]),
                         (result["id"], result["shard"], result["sequence"]))
        self.assertEqual((delivery["key"], delivery["attributes"]), ("k", {"a": "1", "b": "\u00fc"}))
        self.assertEqual(delivery["attempt"], 1)
        self.assertGreater(delivery["lease_until_ms"], delivery["published_ms"])
        self.ack(answer)
        self.assertEqual(self.depths(), (0, 0, 0, 0))

    def test_publish_bodies(self):
        """A body is any bytes, none and all values included."""
        every = [b"", bytes(range(256)), b"\xff\x00\xc1", "\u00fc\n".encode(), b"x" * 100000]
        self.client.publish(topic=self.topic, messages=[{"body": body.hex()} for body in every])
        self.assertEqual([bytes.fromhex(delivery["body"]) for delivery in self.pull()["deliveries"]], every)

    def test_publish_batch(self):
        """The messages of a batch to one shard have sequences without gaps, in their order, and so they come."""
        results = self.publish(*messages(100))
        self.assertEqual([result["sequence"] for result in results], list(range(100)))
        self.assertEqual(len({result["id"] for result in results}), 100)
        self.assertEqual(bodies(self.pull(max=1000)), ["m%d" % index for index in range(100)])

    def test_publish_keyed(self):
        """Messages of one key go to one shard, in order, whoever publishes them and with what else."""
        self.topic += "-16"
        self.client.topic_put(topic=self.topic, shards=16)
        shards = {}
        for _ in range(3):
            batch = [message("x", key="key-%d" % (index % 8)) for index in range(16)]
            for sent, result in zip(batch, self.publish(*batch)):
                shards.setdefault(sent["key"], set()).add(result["shard"])
        self.assertEqual({len(found) for found in shards.values()}, {1})
        self.assertGreater(len(set.union(*shards.values())), 1, "all keys share one shard")

    def test_publish_delayed(self):
        """A message with a delay is not delivered before it has passed, and then it is."""
        self.publish(message("late", delay_ms=1000), message("now"))
        self.assertEqual(bodies(self.pull()), ["now"])
        answer = self.pull_waiting()
        self.assertEqual(bodies(answer), ["late"])
        delivery = answer["deliveries"][0]
        self.assertGreaterEqual(delivery["lease_until_ms"] - 30000, delivery["published_ms"] + 1000)

    def test_publish_ttl(self):
        """A message that nobody has finished within its time to live becomes a dead letter."""
        self.publish(message("short", ttl_ms=100), message("mark", delay_ms=300))
        # None, or even the mark: this has taken longer than that.
        self.assertIn(bodies(self.pull(lease_ms=100)), (["short"], [], ["mark"]))
        self.assertEqual(bodies(self.pull_waiting()), ["mark"])
        self.assertEqual(self.dead(), [("short", "expired", None)])

    def test_publish_idempotent(self):
        """The same message under the same idempotency key is published once and gives the first result again."""
        first, = self.publish(message("a", idempotency_key="i"))
        again, = self.publish(message("a", idempotency_key="i"))
        self.assertTrue(again["replayed"])
        self.assertEqual((again["id"], again["sequence"]), (first["id"], first["sequence"]))
        self.assertEqual(bodies(self.pull()), ["a"])

    def test_publish_idempotency_reused(self):
        """Another message under a used idempotency key is refused, and those beside it are published."""
        self.publish(message("a", idempotency_key="i"))
        answer = self.client.run("publish", topic=self.topic,
                                 messages=[message("b"), message("other", idempotency_key="i"), message("c")])
        self.assertEqual(answer["code"], "idempotency_reused")
        self.assertEqual([result["code"] for result in answer["results"]], ["ok", "idempotency_reused", "ok"])
        self.assertEqual(answer["results"][1]["id"], "")
        self.assertEqual(bodies(self.pull()), ["a", "b", "c"])

    def test_publish_window_none(self):
        """With an idempotency window of 0 nothing is remembered."""
        self.client.topic_put(topic=self.topic, shards=1, idempotency_window_ms=0)
        first, = self.publish(message("a", idempotency_key="i"))
        second, = self.publish(message("a", idempotency_key="i"))
        self.assertFalse(second["replayed"])
        self.assertNotEqual(first["id"], second["id"])

    @settings()
    def test_publish_relaxed(self):
        """Publishes to a relaxed topic say so, the first ones perhaps excepted; those to another do not."""
        self.assertFalse(self.publish(message("a"))[0]["relaxed"])
        self.client.topic_put(topic=self.topic, shards=1, relaxed=True)
        self.assertTrue(any(self.publish(message("b"))[0]["relaxed"] for _ in range(100)))

    def test_publish_atomic(self):
        """An atomic batch whose shards lie on one volume is published as a whole."""
        self.publish(*messages(5), atomic=True)
        self.assertEqual(bodies(self.pull()), ["m0", "m1", "m2", "m3", "m4"])

    def test_publish_atomic_refused(self):
        """An atomic batch with one message that is refused publishes nothing."""
        self.publish(message("a", idempotency_key="i"))
        answer = self.client.run("publish", topic=self.topic, atomic=True,
                                 messages=[message("b"), message("other", idempotency_key="i")])
        self.assertEqual(answer["code"], "aborted")
        self.assertEqual([result["code"] for result in answer["results"]], ["aborted", "idempotency_reused"])
        self.assertEqual(bodies(self.pull()), ["a"])

    def test_publish_not_atomic(self):
        """An atomic batch over several volumes is refused."""
        self.topic += "-64"
        self.client.topic_put(topic=self.topic, shards=64)
        batch = [message("x", key="key-%d" % index) for index in range(64)]
        self.refused("not_atomic", self.publish, *batch, atomic=True)

    def test_publish_not_found(self):
        """Publishing to a topic that does not exist is refused."""
        self.topic = "nowhere"
        self.refused("not_found", self.publish, message("a"))

    # ---- pulling

    def test_pull_max(self):
        """A pull gives as many messages as it asks for, and no message twice while it is leased."""
        self.publish(*messages(5))
        self.assertEqual(bodies(self.pull(max=2)), ["m0", "m1"])
        self.assertEqual(bodies(self.pull(max=2)), ["m2", "m3"])
        self.assertEqual(bodies(self.pull(max=2)), ["m4"])
        self.assertEqual(bodies(self.pull(max=2)), [])
        self.assertEqual(self.depths(), (0, 5, 0, 0))

    def test_pull_max_bytes(self):
        """A pull gives no more bytes than it asks for, but its first message whatever the size."""
        self.publish(*[message("x" * 100) for _ in range(5)])
        self.assertEqual(len(self.pull(max_bytes=250)["deliveries"]), 2)
        self.assertEqual(len(self.pull(max_bytes=300)["deliveries"]), 3)
        self.publish(message("y" * 100))
        self.assertEqual(len(self.pull(max_bytes=1)["deliveries"]), 1)

    def test_pull_empty(self):
        """A pull that finds nothing is answered without a message, at once or when its wait is over."""
        self.assertEqual(bodies(self.pull()), [])
        self.assertEqual(bodies(self.pull(wait_ms=50)), [])

    def test_pull_woken(self):
        """A pull that waits is answered as soon as there is a message."""
        self.client.start(**{"as": "p"}, command={"do": "pull", "topic": self.topic, "subscription": SUBSCRIPTION,
                                                  "max": 1, "wait_ms": 20000})
        self.publish(message("a"))
        self.assertEqual(bodies(self.client.finish(**{"as": "p"})), ["a"])

    def test_pull_not_found(self):
        """A pull from a subscription or topic that does not exist is refused."""
        for topic, subscription in ((self.topic, "nobody"), ("nowhere", SUBSCRIPTION)):
            self.refused("not_found", self.client.pull, topic=topic, subscription=subscription, max=1)

    # ---- settling

    def test_ack(self):
        """What is acknowledged is finished, and its receipt is good for nothing further."""
        self.publish(*messages(2))
        answer = self.pull()
        self.assertEqual(self.ack(answer)["codes"], ["ok", "ok"])
        self.assertEqual(self.depths(), (0, 0, 0, 0))
        for kind in ("ack", "nack", "extend"):
            lost = self.refused("lease_lost", self.settle, kind, receipts(answer))
            self.assertEqual(lost["codes"], ["lease_lost", "lease_lost"])

    def test_ack_some(self):
        """Receipts that hold take effect beside others that do not, and there is a code for each."""
        self.publish(*messages(3))
        answer = self.pull()
        self.settle("ack", receipts(answer)[1:2])
        lost = self.refused("lease_lost", self.ack, answer)
        self.assertEqual(lost["codes"], ["ok", "lease_lost", "ok"])
        self.assertEqual(self.depths(), (0, 0, 0, 0))

    def test_nack(self):
        """What is given back is delivered again, counted, and its old receipt is stale."""
        self.publish(message("a"))
        first = self.pull()
        self.settle("nack", receipts(first))
        second = self.pull()
        self.assertEqual(second["deliveries"][0]["attempt"], 2)
        self.refused("lease_lost", self.ack, first)
        self.ack(second)

    def test_nack_delay(self):
        """What is given back with a delay is not delivered before it has passed."""
        self.publish(message("a"))
        self.settle("nack", receipts(self.pull()), delay_ms=1000)
        self.assertEqual(bodies(self.pull()), [])
        self.assertEqual(self.depths(), (0, 0, 1, 0))
        self.assertEqual(bodies(self.pull_waiting()), ["a"])

    def test_nack_retry_delay(self):
        """Without a delay the subscription's holds; a delay of 0 is one, and means at once."""
        self.client.sub_put(topic=self.topic, subscription=SUBSCRIPTION, retry_delay_ms=NEVER_MS)
        self.publish(message("a"))
        answer = self.pull()
        self.settle("nack", receipts(answer), delay_ms=0)
        answer = self.pull()
        self.assertEqual(bodies(answer), ["a"])
        self.settle("nack", receipts(answer))
        self.assertEqual(bodies(self.pull()), [])
        self.assertEqual(self.depths(), (0, 0, 1, 0))

    def test_nack_reject(self):
        """What is rejected is a dead letter with the reason it was given."""
        self.publish(message("a"))
        self.settle("nack", receipts(self.pull()), reject=True, reason="no such\ncustomer")
        self.assertEqual(self.dead(), [("a", "rejected", "no such\ncustomer")])

    def test_nack_attempts(self):
        """A message whose attempts are used up is a dead letter."""
        self.client.sub_put(topic=self.topic, subscription=SUBSCRIPTION, max_attempts=2)
        self.publish(message("a"))
        for _ in range(2):
            self.settle("nack", receipts(self.pull()))
        self.assertEqual(self.dead(), [("a", "attempts", None)])

    def test_lease_lost(self):
        """When its lease has run out a message is delivered again, and only the new receipt is good."""
        self.publish(message("a"))
        first = self.pull(lease_ms=100)
        second = self.pull_waiting()
        self.assertEqual(bodies(second), ["a"])
        self.assertEqual(second["deliveries"][0]["attempt"], 2)
        for kind in ("ack", "nack", "extend"):
            self.refused("lease_lost", self.settle, kind, receipts(first))
        self.ack(second)

    def test_lease_of_subscription(self):
        """The subscription's lease holds where a pull has none of its own."""
        self.client.sub_put(topic=self.topic, subscription=SUBSCRIPTION, lease_ms=100)
        self.publish(message("a"))
        self.pull()
        self.assertEqual(self.pull_waiting()["deliveries"][0]["attempt"], 2)

    def test_extend(self):
        """An extended lease holds beyond its first end."""
        self.publish(message("a"), message("mark", delay_ms=1200))
        held = self.pull(lease_ms=1000)
        self.assertEqual(bodies(held), ["a"])
        self.settle("extend", receipts(held), lease_ms=60000)
        self.assertEqual(bodies(self.pull_waiting()), ["mark"])
        self.ack(held)

    def test_settle_elsewhere(self):
        """A receipt is settled over any connection."""
        self.publish(message("a"))
        answer = self.pull()
        self.client.disconnect()
        self.client.connect(url=self.proxy.address)
        self.ack(answer)
        self.assertEqual(self.depths(), (0, 0, 0, 0))

    def test_settle_other_subscription(self):
        """A receipt is good for its own subscription only."""
        self.client.sub_put(topic=self.topic, subscription="other")
        self.publish(message("a"))
        answer = self.pull()
        self.refused("lease_lost", self.client.settle, kind="ack", topic=self.topic, subscription="other",
                     receipts=receipts(answer))
        self.ack(answer)

    def test_settle_not_found(self):
        """Settling for a subscription that does not exist is refused as a whole."""
        self.publish(message("a"))
        answer = self.refused("not_found", self.client.settle, kind="ack", topic=self.topic, subscription="nobody",
                              receipts=receipts(self.pull()))
        self.assertNotIn("codes", answer)

    def test_settle_no_receipt(self):
        """Bytes that are no receipt refuse the request as a whole, so that nothing of it takes effect."""
        self.publish(message("a"))
        answer = self.pull()
        self.refused("invalid", self.settle, "ack", receipts(answer) + ["abcd"])
        self.ack(answer)

    # ---- streams

    def stream(self, **options):
        self.client.stream(**{"as": "st"}, topic=self.topic, subscription=SUBSCRIPTION, **options)

    def take(self, count):
        return self.client.take(**{"as": "st"}, count=count)

    def verdicts(self, verdict, answer):
        for receipt in receipts(answer):
            self.client.verdict(**{"as": "st"}, receipt=receipt, verdict=verdict)

    def close_stream(self):
        self.client.close_stream(**{"as": "st"})

    def test_stream(self):
        """A stream delivers what is there and what comes, one after the other, and its verdicts take effect."""
        self.publish(*messages(3))
        self.stream(concurrency=1)
        for index in range(5):
            if index == 3:
                self.publish(message("m3"), message("m4"))
            answer = self.take(1)
            self.assertEqual(bodies(answer), ["m%d" % index])
            self.verdicts("ack", answer)
        self.close_stream()
        self.assertEqual(self.depths(), (0, 0, 0, 0))

    def test_stream_credit(self):
        """A stream that stalls holds as many messages as it has handlers; the others are free for others."""
        self.publish(*messages(10))
        self.stream(concurrency=3)
        held = self.take(3)
        self.assertEqual(sorted(bodies(held)), ["m0", "m1", "m2"])
        self.assertEqual(self.depths(), (7, 3, 0, 0))
        self.assertEqual(bodies(self.pull(max=1)), ["m3"])
        self.assertEqual(self.depths(), (6, 4, 0, 0))
        self.verdicts("ack", {"deliveries": held["deliveries"][:1]})
        more = self.take(1)
        self.assertEqual(bodies(more), ["m4"])
        self.verdicts("keep", more)
        self.verdicts("keep", {"deliveries": held["deliveries"][1:]})
        self.verdicts("keep", self.take(3))
        self.verdicts("ack", self.take(2))
        self.close_stream()

    def test_stream_verdicts(self):
        """A handler acknowledges, gives back, rejects, or keeps the message to settle it later."""
        self.publish(*[message(body) for body in ("ack", "nack", "reject", "keep")])
        self.stream(concurrency=4)
        answer = self.take(4)
        for delivery, verdict in zip(answer["deliveries"], bodies(answer)):
            self.client.verdict(**{"as": "st"}, receipt=delivery["receipt"], verdict=verdict)
        again = self.take(1)
        self.assertEqual((bodies(again), again["deliveries"][0]["attempt"]), (["nack"], 2))
        self.verdicts("ack", again)
        self.close_stream()
        self.assertEqual(self.depths(), (0, 1, 0, 1))
        self.settle("ack", [delivery["receipt"] for delivery in answer["deliveries"]
                            if delivery["body"] == text("keep")])
        self.assertEqual(self.dead(), [("reject", "rejected", None)])

    def test_stream_closed(self):
        """What a stream was given and nobody has worked on goes back when it is closed."""
        self.publish(*messages(4))
        self.stream(concurrency=1, prefetch=2)
        self.verdicts("ack", self.take(1))
        self.close_stream()
        back = []
        while len(back) < 3:
            back += bodies(self.pull_waiting())
        self.assertEqual(sorted(back), ["m1", "m2", "m3"])

    def test_stream_bytes(self):
        """A stream goes on for ever on a byte credit of a few messages, keys and attributes included."""
        self.publish(*messages(200, key="k" * 20, attributes={"a": "x" * 20, "b": ""}))
        self.stream(concurrency=2, bytes=200)
        for _ in range(200):
            self.verdicts("ack", self.take(1))
        self.close_stream()
        self.assertEqual(self.depths(), (0, 0, 0, 0))

    def test_stream_not_found(self):
        """A stream of a subscription that does not exist is refused."""
        self.refused("not_found", self.client.stream, **{"as": "st"}, topic=self.topic, subscription="nobody")

    def test_stream_ends(self):
        """A stream ends when its subscription is deleted."""
        self.stream()
        self.assertEqual(self.broker.request("DELETE", self.path())[0], 204)
        self.assertEqual(self.client.end(**{"as": "st"})["end"], "not_found")

    # ---- settings and limits

    def test_topic_put(self):
        """Creating a topic or subscription again is no error; another number of shards is."""
        self.assertFalse(self.client.topic_put(topic=self.topic, shards=1)["created"])
        self.assertFalse(self.client.topic_put(topic=self.topic)["created"])
        self.assertFalse(self.client.sub_put(topic=self.topic, subscription=SUBSCRIPTION)["created"])
        self.assertTrue(self.client.sub_put(topic=self.topic, subscription="new")["created"])
        self.refused("exists", self.client.topic_put, topic=self.topic, shards=2)
        self.refused("not_found", self.client.sub_put, topic="nowhere", subscription=SUBSCRIPTION)

    def test_start_earliest(self):
        """A new subscription begins at the end, or where it is told to, within what is kept."""
        self.client.topic_put(topic=self.topic, shards=1, retention_ms=60000)
        self.publish(message("a"))
        for subscription, start, expected in (("late", "latest", []), ("early", "earliest", ["a"])):
            self.client.sub_put(topic=self.topic, subscription=subscription, start=start)
            self.assertEqual(bodies(self.client.pull(topic=self.topic, subscription=subscription, max=9)), expected)

    def test_max_in_flight(self):
        """A shard leases no more messages than the subscription allows."""
        self.client.sub_put(topic=self.topic, subscription=SUBSCRIPTION, max_in_flight=2)
        self.publish(*messages(5))
        answer = self.pull()
        self.assertEqual(bodies(answer), ["m0", "m1"])
        self.assertEqual(bodies(self.pull()), [])
        self.ack(answer)
        self.assertEqual(bodies(self.pull()), ["m2", "m3"])

    @settings(message_size_max=1000, pull_messages_max=3, pull_size_max=1500)
    def test_limits(self):
        """The broker's limits hold: too much in one request refuses it, too much in an answer is not given."""
        self.refused("too_large", self.publish, message("x" * 1001))
        self.publish(message("x" * 1000))
        self.publish(*messages(4))
        self.assertEqual(len(self.pull()["deliveries"]), 3)
        self.publish(message("x" * 1000), message("y" * 1000))
        self.assertEqual(len(self.pull()["deliveries"]), 3)
        self.assertEqual(len(self.pull()["deliveries"]), 1)

    def test_bounds(self):
        """What is out of its bounds is refused, and has no effect."""
        for fields in ({"key": "k" * 2049}, {"idempotency_key": "i" * 256}, {"delay_ms": 2592000001},
                       {"ttl_ms": 31536000001}, {"attributes": {"a": "x" * 32768}}, {"attributes": {"A": "1"}},
                       {"key": "a\nb"}):
            with self.subTest(fields=str(fields)[:60]):
                self.refused("invalid", self.publish, message("a", **fields))
        for name in ("", "a/b", "..", "n" * 256):
            with self.subTest(name=name[:10]):
                self.refused("invalid", self.client.topic_put, topic=name)
                self.refused("invalid", self.client.sub_put, topic=self.topic, subscription=name)
        self.refused("invalid", self.client.topic_put, topic="new", shards=4097)
        self.refused("invalid", self.client.sub_put, topic=self.topic, subscription="new", lease_ms=99)
        self.refused("invalid", self.pull, lease_ms=99)
        self.assertEqual(bodies(self.pull()), [])

    def test_receipts_too_many(self):
        """One request settles 10,000 receipts at most."""
        self.publish(message("a"))
        answer = self.pull()
        self.refused("invalid", self.settle, "ack", receipts(answer) * 10001)
        self.settle("ack", receipts(answer))


class BatchScenarios:
    """For clients that publish a batch as they are given it."""

    @settings(batch_messages_max=4)
    def test_batch_large(self):
        """A batch of too many messages is refused, and one of as many as are allowed is not."""
        self.refused("invalid", self.publish, *messages(5))
        self.publish(*messages(4))
        self.assertEqual(bodies(self.pull()), ["m0", "m1", "m2", "m3"])

    def test_batch_wrong(self):
        """A batch with a message that is not valid is refused as a whole."""
        self.refused("invalid", self.publish, message("a"), message("b", key="k" * 2049), message("c"))
        self.assertEqual(bodies(self.pull()), [])


class LibraryScenarios:
    """For libflare, which does more than the protocol asks of a client."""

    def test_stream_extends(self):
        """The lease of a message whose handler is at work is extended for as long as that takes."""
        self.publish(message("long"), message("mark", delay_ms=5000))
        self.stream(concurrency=2, lease_ms=3000)
        held = self.take(1)
        self.assertEqual(bodies(held), ["long"])
        mark = self.take(1)
        self.assertEqual(bodies(mark), ["mark"])
        self.verdicts("ack", held)
        self.verdicts("ack", mark)
        self.close_stream()
        self.assertEqual(self.depths(), (0, 0, 0, 0))


class NetworkScenarios(CommonScenarios):
    """Connections break; brokers stop and start."""

    def start_publish(self, *list_of_messages):
        self.client.start(**{"as": "p"}, command={"do": "publish", "topic": self.topic,
                                                  "messages": list(list_of_messages)})

    def test_reconnect(self):
        """A client whose connection has been cut goes on over another."""
        self.publish(message("a"))
        answer = self.pull()
        self.proxy.cut()
        self.publish(message("b"))
        self.ack(answer)
        self.proxy.cut()
        self.assertEqual(bodies(self.pull_waiting()), ["b"])

    def test_reconnect_publish_once(self):
        """A publish whose answer was lost is sent again, published once, and answered with its first result."""
        self.proxy.drop_answers()
        self.start_publish(*messages(3))
        self.proxy.await_dropped()
        self.proxy.pass_answers()
        results = self.client.finish(**{"as": "p"})["results"]
        self.assertEqual([(result["sequence"], result["replayed"]) for result in results],
                         [(0, True), (1, True), (2, True)])
        self.assertEqual(bodies(self.pull()), ["m0", "m1", "m2"])

    def test_reconnect_settle_unknown(self):
        """A settlement whose answer was lost is not sent again, since it may have taken effect."""
        self.publish(message("a"))
        answer = self.pull()
        self.proxy.drop_answers()
        self.client.start(**{"as": "a"}, command={"do": "settle", "kind": "ack", "topic": self.topic,
                                                  "subscription": SUBSCRIPTION, "receipts": receipts(answer)})
        self.proxy.await_dropped()
        self.proxy.pass_answers()
        self.refused("unknown", self.client.finish, **{"as": "a"})
        self.refused("lease_lost", self.ack, answer)
        self.assertEqual(self.depths(), (0, 0, 0, 0))

    def test_reconnect_pull(self):
        """A pull that waits while its connection is cut waits on over the next."""
        self.client.start(**{"as": "p"}, command={"do": "pull", "topic": self.topic, "subscription": SUBSCRIPTION,
                                                  "max": 1, "wait_ms": 20000})
        self.client.ping()
        self.proxy.cut()
        self.broker.request("POST", "/v1/topics/%s/messages" % self.topic)
        self.assertEqual(len(self.client.finish(**{"as": "p"})["deliveries"]), 1)

    def test_reconnect_stream(self):
        """A stream goes on after its connection was cut, with the credit it had left."""
        self.publish(*messages(5))
        self.stream(concurrency=2)
        held = self.take(2)
        self.proxy.cut()
        self.client.ping()
        self.verdicts("ack", held)
        rest = []
        for _ in range(3):
            answer = self.take(1)
            rest += bodies(answer)
            self.verdicts("ack", answer)
        self.assertEqual(sorted(rest), ["m2", "m3", "m4"])
        self.close_stream()
        self.assertEqual(self.depths(), (0, 0, 0, 0))

    @settings()
    def test_restart_term(self):
        """A broker that is stopped and started on its directory has all messages, and knows its receipts."""
        self.restart(signal.SIGTERM)

    def restart(self, number):
        self.publish(*messages(100))
        answer = self.pull(max=40)
        self.settle("ack", receipts(answer)[:20])
        self.broker.restart(number)
        self.client.ping()
        self.settle("ack", receipts(answer)[20:])
        self.assertEqual(self.depths(), (60, 0, 0, 0))
        self.assertEqual(bodies(self.pull(max=100)), ["m%d" % index for index in range(40, 100)])

    @settings()
    def test_restart_stream(self):
        """A stream goes on when its broker has been started anew."""
        self.publish(*messages(2))
        self.stream(concurrency=1)
        answer = self.take(1)
        self.broker.restart(signal.SIGTERM)
        self.client.ping()
        self.verdicts("ack", answer)
        answer = self.take(1)
        self.assertEqual(bodies(answer), ["m1"])
        self.verdicts("ack", answer)
        self.close_stream()

    @settings()
    def test_broker_away(self):
        """What is asked while there is no broker is done when there is one."""
        self.broker.stop()
        self.start_publish(message("a"))
        self.broker.start()
        self.client.finish(**{"as": "p"})
        self.assertEqual(bodies(self.pull()), ["a"])


class KillScenarios:
    """For clients whose broker is another process, which can be killed."""

    @settings()
    def test_restart_kill(self):
        """A broker that is killed has lost nothing that it had confirmed."""
        self.restart(signal.SIGKILL)

    @settings()
    def test_restart_publish_once(self):
        """A publish whose answer was lost with its broker is published once all the same."""
        self.proxy.drop_answers()
        self.start_publish(*messages(3))
        self.proxy.await_dropped()
        self.broker.stop(signal.SIGKILL)
        self.proxy.pass_answers()
        self.broker.start()
        results = self.client.finish(**{"as": "p"})["results"]
        self.assertEqual([result["sequence"] for result in results], [0, 1, 2])
        self.assertEqual(bodies(self.pull()), ["m0", "m1", "m2"])


class PythonClient(NetworkScenarios, KillScenarios, BatchScenarios, Scenario):
    """tests/interop/flare_wire.py."""

    driver_command = [sys.executable, "-B", os.path.join(INTEROP, "driver.py")]


DRIVER = os.path.join(os.environ["FLARE_BUILD_DIR"], "tests/interop/driver")


class BlockingClient(LibraryScenarios, NetworkScenarios, KillScenarios, BatchScenarios, Scenario):
    """libflare's functions that block."""

    driver_command = [DRIVER, "blocking"]


class AsyncClient(LibraryScenarios, NetworkScenarios, KillScenarios, Scenario):
    """libflare's asynchronous functions, which put batches together by themselves."""

    driver_command = [DRIVER, "async"]


class EmbeddedClient(LibraryScenarios, NetworkScenarios, BatchScenarios, Scenario):
    """libflare with the broker in its own process (libflare-broker), in memory where nothing is restarted."""

    driver_command = [DRIVER, "blocking"]

    def open_broker(self, own):
        broker = scene.EmbeddedBroker(self.client, own is not None, **(own or {}))
        self.addCleanup(broker.close)
        return broker


if __name__ == "__main__":
    unittest.main(verbosity=2)
