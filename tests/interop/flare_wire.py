"""A client of Flare's wire protocol in plain Python, written from SPEC.md ("Wire protocol") and nothing else.

It shows that the page is enough to write a client, and checks the broker and libflare from outside: it shares
no line with either. It is small rather than fast: one thread, blocking, everything that waits reads the socket.

    client = Client("127.0.0.1:8089")
    client.publish("orders", [{"body": b"hello", "key": "customer-7"}])
    for delivery in client.pull("orders", "billing", max=10, wait_ms=20000):
        client.ack("orders", "billing", [delivery.receipt])

Requests may be pipelined: `send` gives an id, `wait` its answer. What is unanswered when the connection breaks is
sent again on the next one where that is safe (see RESENT). Needs the package msgpack (Debian: python3-msgpack)."""
import collections
import os
import socket
import struct
import time
import types

import msgpack

VERSION = 1
TIMEOUT = 60  # seconds after which a wait for the broker is taken for a failure

# ---- messages ----------------------------------------------------------------------------------

# What a field is when it is absent. MAYBE keeps absent and 0 apart.
ABSENT = {"U32": 0, "U64": 0, "MAYBE": None, "BOOL": False, "NAME": "", "TEXT": "", "NOTE": "", "BYTES": b"", "MAP": {}}

RECORDS = {
    "message": "body:BYTES key:TEXT attributes:MAP delay_ms:U64 ttl_ms:U64 idempotency_key:TEXT",
    "result": "id:BYTES shard:U32 sequence:U64 code:U32 replayed:BOOL",
    "delivery": "id:BYTES receipt:BYTES shard:U32 sequence:U64 attempt:U32 published_ms:U64 "
                "lease_until_ms:U64 body:BYTES key:TEXT attributes:MAP epoch:U32",
    "receipt": "receipt:BYTES",
    "code": "code:U32",
}

# number, name, fields; a field whose kind is a record is a list of them.
MESSAGES = [
    (1, "hello", "version:U32 client:TEXT"),
    (2, "welcome", "version:U32 broker:TEXT frame_size_max:U32 window_requests:U32 window_size:U32 "
                   "message_size_max:U32 batch_messages_max:U32 pull_messages_max:U32 pull_size_max:U32 "
                   "wait_max_ms:U64"),
    (3, "failure", "code:U32 slug:TEXT detail:NOTE retryable:BOOL retry_after_ms:U64"),
    (4, "ping", ""),
    (5, "pong", ""),
    (6, "goodbye", ""),
    (8, "publish", "topic:NAME atomic:BOOL batch_key:BYTES messages:message"),
    (9, "published", "durability:U32 results:result"),
    (10, "pull", "topic:NAME subscription:NAME max:U32 max_bytes:U32 wait_ms:U64 lease_ms:U64 consumer:TEXT"),
    (11, "pulled", "deliveries:delivery"),
    (12, "ack", "topic:NAME subscription:NAME receipts:receipt"),
    (13, "nack", "topic:NAME subscription:NAME delay_ms:MAYBE reject:BOOL reason:NOTE receipts:receipt"),
    (14, "extend", "topic:NAME subscription:NAME lease_ms:U64 receipts:receipt"),
    (15, "settled", "count:U32 lease_ms:U64 codes:code"),
    (16, "consume", "topic:NAME subscription:NAME messages:U32 bytes:U32 lease_ms:U64 consumer:TEXT"),
    (17, "credit", "messages:U32 bytes:U32"),
    (18, "deliver", "deliveries:delivery"),
    (19, "cancel", ""),
    (20, "ended", "code:U32 slug:TEXT detail:NOTE"),
    (24, "topic_put", "topic:NAME shards:U32 retention_ms:U64 retention_bytes:U64 idempotency_window_ms:MAYBE "
                      "durability:U32"),
    (25, "sub_put", "topic:NAME subscription:NAME lease_ms:U64 max_attempts:MAYBE retry_delay_ms:U64 "
                    "max_in_flight:U32 start:U32 start_ms:U64"),
    (26, "configured", "created:BOOL version:U32"),
]


def fields_of(text):
    return [tuple(field.split(":")) for field in text.split()]


RECORD_FIELDS = {name: fields_of(text) for name, text in RECORDS.items()}
NUMBERS = {name: number for number, name, _ in MESSAGES}
NAMES = {number: name for number, name, _ in MESSAGES}  # of those this version knows
FIELDS = {name: fields_of(text) for _, name, text in MESSAGES}

CODES = {
    0: "ok", 1: "invalid", 2: "not_found", 3: "exists", 4: "conflict", 5: "lease_lost", 6: "precondition",
    7: "too_large", 8: "unsupported_type", 9: "idempotency_reused", 10: "not_atomic", 11: "busy",
    12: "headers_too_large", 13: "internal", 14: "unavailable", 15: "no_space", 16: "method", 17: "timeout",
    18: "not_acceptable", 19: "quota", 20: "io", 21: "corrupt", 22: "format", 23: "locked", 24: "memory",
    25: "map_full", 26: "aborted", 27: "moved", 28: "unknown", 29: "fenced", 30: "not_implemented",
}


def values_to_wire(fields, values):
    """The values of a message or record in the order of its fields, without those that end it absent."""
    unknown = set(values) - {name for name, _ in fields}
    if unknown:
        raise TypeError("no such field: %s" % ", ".join(sorted(unknown)))
    array = []
    for name, kind in fields:
        value = values.get(name)
        if kind in RECORD_FIELDS:
            value = [values_to_wire(RECORD_FIELDS[kind], record) for record in value or []]
        array.append(value)
    while array and array[-1] is None:
        array.pop()
    return array


def values_from_wire(fields, array):
    """The fields as attributes; what is absent is as ABSENT says, what is beyond them is passed over."""
    values = {}
    for index, (name, kind) in enumerate(fields):
        value = array[index] if index < len(array) else None
        if kind in RECORD_FIELDS:
            value = [values_from_wire(RECORD_FIELDS[kind], record) for record in value or []]
        elif value is None:
            value = ABSENT[kind]
        elif kind == "BYTES" and isinstance(value, str):
            value = value.encode()
        values[name] = value
    return types.SimpleNamespace(**values)


def payload_encode(name, request_id, values):
    return msgpack.packb([NUMBERS[name], request_id] + values_to_wire(FIELDS[name], values), use_bin_type=True)


def frame(payload):
    return struct.pack(">I", len(payload)) + payload


# ---- connections -------------------------------------------------------------------------------

class Lost(Exception):
    """The connection has ended; `failure` says why where the broker has said so."""

    def __init__(self, message, failure=None):
        super().__init__(message)
        self.failure = failure


class Failure(Exception):
    """A request has failed as a whole."""

    def __init__(self, slug, detail="", code=0, retryable=False, retry_after_ms=0):
        super().__init__("%s: %s" % (slug, detail))
        self.slug = slug
        self.detail = detail
        self.code = code
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms


class Connection:
    """One TCP connection: frames out and in, and nothing remembered."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()

    def close(self):
        self.socket.close()

    def send_bytes(self, data):
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Lost("sending: %s" % error) from error

    def send(self, name, request_id, **values):
        self.send_bytes(frame(payload_encode(name, request_id, values)))

    def take_frame(self):
        """The payload of a frame that has been received whole; None: there is none."""
        if len(self.received) < 4:
            return None
        size = struct.unpack_from(">I", self.received)[0]
        if len(self.received) < 4 + size:
            return None
        payload = bytes(self.received[4:4 + size])
        del self.received[:4 + size]
        return payload

    def receive(self, timeout=TIMEOUT):
        """The next message that this version knows, as (name, id, fields). Raises Lost, and TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            payload = self.take_frame()
            if payload is None:
                self.fill(deadline)
                continue
            array = msgpack.unpackb(payload, raw=False)
            name = NAMES.get(array[0])
            if name is not None:
                return name, array[1], values_from_wire(FIELDS[name], array[2:])

    def fill(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the broker does not answer")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(1 << 16)
        except socket.timeout as error:
            raise TimeoutError("the broker does not answer") from error
        except OSError as error:
            raise Lost("receiving: %s" % error) from error
        finally:
            self.socket.settimeout(TIMEOUT)
        if not data:
            raise Lost("the broker has closed the connection")
        self.received += data

    def hello(self, client):
        """Begins the protocol; the welcome."""
        self.send("hello", 1, version=VERSION, client=client)
        name, _, fields = self.receive()
        if name == "failure":
            raise Lost("hello is refused: %s" % fields.detail, fields)
        if name != "welcome":
            raise Lost("the answer to hello is %s" % name)
        return fields


# ---- the client --------------------------------------------------------------------------------

# Requests that may be sent again on a new connection: pulls because what the old one was given is its broker's
# to take back, settings because they are idempotent, publishes only with a batch key. A settlement may have
# taken effect, so that its caller must decide.
RESENT = {"ping", "pull", "topic_put", "sub_put"}


class Stream:
    """A credit stream; deliveries come from `next`."""

    def __init__(self, client, values):
        self.client = client
        self.values = values
        self.messages = values.get("messages") or 0  # credit left
        self.bytes = values.get("bytes") or 0
        self.deliveries = collections.deque()
        self.end = None
        self.id = client.send("consume", **values)

    def credit(self, messages=0, bytes=0):
        self.messages += messages
        self.bytes += bytes
        if self.end is None:
            self.client.send_now("credit", self.id, messages=messages, bytes=bytes)

    def received(self, deliveries):
        for delivery in deliveries:
            self.messages -= 1
            self.bytes -= delivery_size(delivery)
            self.deliveries.append(delivery)

    def next(self, timeout=TIMEOUT):
        """The next delivery; None once the stream has ended."""
        self.client.read_until(lambda: self.deliveries or self.end is not None, timeout)
        return self.deliveries.popleft() if self.deliveries else None

    def cancel(self):
        """Ends it; what had been delivered before comes from `next` still. The slug of its end."""
        if self.end is None:
            self.client.send_now("cancel", self.id)
        return self.ended()

    def ended(self, timeout=TIMEOUT):
        self.client.read_until(lambda: self.end is not None, timeout)
        return self.end.slug


def delivery_size(delivery):
    """What it takes from the byte credit of a stream."""
    attributes = sum(len(name.encode()) + len(value.encode()) + 4 for name, value in delivery.attributes.items())
    return len(delivery.body) + len(delivery.key.encode()) + attributes


class Client:
    """A connection that is made again when it breaks. For one thread."""

    def __init__(self, address, name="flare_wire.py", give_up=TIMEOUT):
        self.address = address
        self.name = name
        self.give_up = give_up  # seconds of trying to connect again
        self.id = 1
        self.pending = {}  # id -> (name, frame, may be sent again), in order of sending
        self.answers = {}  # id -> fields, or a Failure
        self.streams = {}  # id -> Stream
        self.connection = None
        self.stopping = False  # the broker has said goodbye
        self.connect()

    def close(self):
        self.connection.close()

    def connect(self):
        connection = Connection(self.address)
        try:
            self.welcome = connection.hello(self.name)
        except BaseException:
            connection.close()
            raise
        self.connection = connection
        self.stopping = False

    def reconnect(self):
        """Connects again, fails what must not be sent twice, and sends the rest in its old order."""
        self.connection.close()
        for request_id, (name, _, again) in list(self.pending.items()):
            if not again:
                del self.pending[request_id]
                self.answers[request_id] = Failure("unknown", "the connection broke before the answer to %s" % name)
        deadline = time.monotonic() + self.give_up
        pause = 0.01
        while True:
            try:
                self.connect()
                for _, data, _ in self.pending.values():
                    self.connection.send_bytes(data)
                self.reopen_streams()
                return
            except (OSError, Lost) as error:
                if time.monotonic() + pause > deadline:
                    raise Lost("no connection: %s" % error) from error
                time.sleep(pause)
                pause = min(2 * pause, 1)

    def reopen_streams(self):
        """The credit that is left is granted anew; what is below zero was given back when they broke."""
        for stream in self.streams.values():
            values = dict(stream.values, messages=max(stream.messages, 0), bytes=max(stream.bytes, 0))
            self.connection.send("consume", stream.id, **values)

    # ---- sending and receiving

    def send(self, name, **values):
        """Sends a request and returns its id, for `wait`."""
        self.id += 1
        data = frame(payload_encode(name, self.id, values))
        if name == "consume":
            self.send_data(data)
            return self.id
        self.pending[self.id] = (name, data, name in RESENT or bool(values.get("batch_key")))
        self.send_data(data)
        return self.id

    def send_now(self, name, request_id, **values):
        """Sends what has no answer of its own."""
        self.send_data(frame(payload_encode(name, request_id, values)))

    def send_data(self, data):
        """A connection that has broken is noticed, and made again, by who reads next."""
        try:
            self.connection.send_bytes(data)
        except Lost:
            pass

    def wait(self, request_id, timeout=TIMEOUT):
        """The answer to a request. Raises its Failure."""
        self.read_until(lambda: request_id in self.answers, timeout)
        answer = self.answers.pop(request_id)
        if isinstance(answer, Failure):
            raise answer
        return answer

    def read_until(self, condition, timeout=TIMEOUT):
        deadline = time.monotonic() + timeout
        while not condition():
            try:
                name, request_id, fields = self.connection.receive(max(deadline - time.monotonic(), 0.001))
                self.dispatch(name, request_id, fields)
            except Lost:
                self.reconnect()

    def dispatch(self, name, request_id, fields):
        stream = self.streams.get(request_id)
        if name == "goodbye":
            self.stopping = True
        elif name == "failure" and request_id == 0:
            raise Lost(fields.detail, fields)
        elif stream is not None:
            self.dispatch_stream(stream, name, fields)
        elif request_id in self.pending:
            del self.pending[request_id]
            self.answers[request_id] = fields if name != "failure" else Failure(
                fields.slug, fields.detail, fields.code, fields.retryable, fields.retry_after_ms)

    def dispatch_stream(self, stream, name, fields):
        if name == "deliver":
            stream.received(fields.deliveries)
        elif name in ("ended", "failure") and not self.stopping:  # otherwise it is opened again with the connection
            del self.streams[stream.id]
            stream.end = fields

    def call(self, name, **values):
        return self.wait(self.send(name, **values))

    # ---- requests

    def ping(self):
        self.call("ping")

    def topic_put(self, topic, **settings):
        return self.call("topic_put", topic=topic, **settings)

    def sub_put(self, topic, subscription, **settings):
        return self.call("sub_put", topic=topic, subscription=subscription, **settings)

    def send_publish(self, topic, messages, atomic=False, batch_key=None):
        if batch_key is None:
            batch_key = os.urandom(16)
        return self.send("publish", topic=topic, atomic=atomic, batch_key=batch_key, messages=messages)

    def publish(self, topic, messages, atomic=False, batch_key=None):
        """Publishes dicts of the fields of `message`. A batch key of b"" is none: it is not sent again then."""
        return self.wait(self.send_publish(topic, messages, atomic, batch_key))

    def pull(self, topic, subscription, max=1, **options):
        return self.call("pull", topic=topic, subscription=subscription, max=max, **options).deliveries

    def settle(self, kind, topic, subscription, receipts, **options):
        return self.call(kind, topic=topic, subscription=subscription,
                         receipts=[{"receipt": receipt} for receipt in receipts], **options)

    def ack(self, topic, subscription, receipts):
        return self.settle("ack", topic, subscription, receipts)

    def nack(self, topic, subscription, receipts, **options):
        return self.settle("nack", topic, subscription, receipts, **options)

    def extend(self, topic, subscription, receipts, **options):
        return self.settle("extend", topic, subscription, receipts, **options)

    def consume(self, topic, subscription, messages=0, bytes=0, **options):
        stream = Stream(self, dict(topic=topic, subscription=subscription, messages=messages, bytes=bytes, **options))
        self.streams[stream.id] = stream
        return stream
