"""What the scenarios are made of: a broker, a proxy that cuts connections, and drivers of clients.

DRIVERS. A driver is a program that runs one client library: it reads commands as lines of JSON on its standard
input and answers each by a line on its standard output, in order. Bodies, ids, receipts and batch keys are
hexadecimal texts. Every answer has `code`: "ok", or the name of the problem, with `detail`.

    connect     url -> limits               | disconnect
    ping
    open        data, settings -> http, wire: a broker in the driver's own process, in memory without data
    shut        ends it
    topic_put   topic, shards, retention_ms, retention_bytes, idempotency_window_ms, relaxed -> created
    sub_put     topic, subscription, lease_ms, max_attempts, retry_delay_ms, max_in_flight, start -> created
    publish     topic, messages, atomic [, batch_key] -> results: code, id, shard, sequence, replayed, relaxed
    pull        topic, subscription, max, max_bytes, wait_ms, lease_ms, consumer -> deliveries
    settle      kind (ack, nack, extend), topic, subscription, receipts, delay_ms, reject, reason, lease_ms
                -> codes
    start       as, command (publish, pull or settle): begins it without waiting
    finish      as -> what the command gives
    stream      as, topic, subscription, concurrency, prefetch, bytes, lease_ms
    take        as, count -> deliveries: the next that handlers are given
    verdict     as, receipt, verdict (ack, nack, reject, keep): ends the handler of this delivery
    end         as -> end: waits until the stream has ended by itself
    close_stream as: ends the stream; what was taken must have had its verdict, what was not goes back
"""
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

TIMEOUT = 60
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def end_with_parent():
    """Runs in a new process: it is killed when the test program ends before it, however that ends."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Broker:
    """A `flared` on a directory of its own, kept over restarts."""

    def __init__(self, environment=None, **settings):
        self.directory = tempfile.mkdtemp(prefix="flare-scene-")
        self.environment = dict(os.environ, **(environment or {}))
        self.settings = settings
        self.process = None
        self.log = open(os.path.join(self.directory, "log"), "ab")
        self.start()

    def start(self):
        command = [os.environ["FLARED"], "--data", os.path.join(self.directory, "data"),
                   "--http", "127.0.0.1:0", "--wire", "127.0.0.1:0"]
        for name, value in self.settings.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, env=self.environment,
                                        preexec_fn=end_with_parent)
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("flared did not start:\n" + self.log_text())
        ready = json.loads(line)
        self.http = ready["http"]
        self.wire = ready["wire"]

    def log_text(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as file:
            return file.read()

    def stop(self, number=signal.SIGTERM):
        """Ends it and waits; its exit code must be that of an orderly end, or of the signal that kills."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(TIMEOUT)
        self.process.stdout.close()
        expected = -number if number == signal.SIGKILL else 0
        if code != expected:
            raise AssertionError("flared ended with %d:\n%s" % (code, self.log_text()[-4000:]))

    def restart(self, number=signal.SIGTERM):
        self.stop(number)
        self.start()

    def close(self):
        try:
            self.stop()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.log.close()
            shutil.rmtree(self.directory)

    def request(self, method, path, document=None):
        """The status and the document (or text) of an answer of the HTTP API."""
        host, port = self.http.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT)
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            data = answer.read().decode()
            is_document = "json" in (answer.getheader("Content-Type") or "")
            return answer.status, json.loads(data) if is_document and data else data
        finally:
            connection.close()

    def metric(self, name):
        _, text = self.request("GET", "/metrics")
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if line.split("{")[0].split(" ")[0] == name)

    def memory(self):
        """Bytes of memory it holds, without the pages of its files, which are the system's to drop."""
        with open("/proc/%d/status" % self.process.pid, encoding="ascii") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon:"))


class EmbeddedBroker(Broker):
    """A broker in the process of a driver: in memory, or on a directory where there is one."""

    def __init__(self, driver, keeps, **settings):  # pylint: disable=super-init-not-called
        self.driver = driver
        self.directory = tempfile.mkdtemp(prefix="flare-scene-") if keeps else None
        self.settings = dict({"log_level": "error"}, **settings)
        self.start()

    def start(self):
        where = {"data": self.directory} if self.directory else {}
        lines = "".join("%s = %s\n" % (name.replace("_", "-"), value) for name, value in self.settings.items())
        ready = self.driver.open(settings=lines, **where)
        self.http = ready["http"]
        self.wire = ready["wire"]

    def stop(self, number=signal.SIGTERM):
        assert number == signal.SIGTERM, "it cannot be killed without its driver"
        self.driver.shut()

    def close(self):
        """When its driver has ended, and the broker with it."""
        if self.directory:
            shutil.rmtree(self.directory)


class Proxy:
    """Stands between clients and a broker: an address that outlives it, and connections that break on demand."""

    def __init__(self, broker):
        self.broker = broker
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.lock = threading.Condition()
        self.pairs = []
        self.threads = []
        self.open = True  # connections reach the broker; otherwise they are refused
        self.swallow = False  # what the broker sends is dropped
        self.swallowed = 0
        self.closing = False
        self.spawn(self.accept)

    def spawn(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        thread.start()
        self.threads.append(thread)

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                try:
                    if not self.open:
                        raise ConnectionRefusedError
                    host, port = self.broker.wire.rsplit(":", 1)
                    peer = socket.create_connection((host, int(port)))
                except OSError:
                    client.close()
                    continue
                self.pairs.append((client, peer))
            self.spawn(self.copy, client, peer, False)
            self.spawn(self.copy, peer, client, True)

    def copy(self, source, target, from_broker):
        try:
            while data := source.recv(1 << 16):
                with self.lock:
                    if from_broker and self.swallow:
                        self.swallowed += len(data)
                        self.lock.notify_all()
                        continue
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        """Breaks every connection, on both sides."""
        with self.lock:
            for pair in self.pairs:
                for end in pair:
                    try:
                        end.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass

    def drop_answers(self):
        with self.lock:
            self.swallow = True
            self.swallowed = 0

    def await_dropped(self):
        """Waits until an answer has been dropped, so that the broker has done what it answers."""
        with self.lock:
            if not self.lock.wait_for(lambda: self.swallowed > 0, TIMEOUT):
                raise AssertionError("the broker has answered nothing")

    def pass_answers(self):
        """Cuts what has lost answers; new connections are whole."""
        with self.lock:
            self.swallow = False
        self.cut()

    def close(self):
        with self.lock:
            self.open = False
        self.cut()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(TIMEOUT)
        for pair in self.pairs:
            for end in pair:
                end.close()


class Refused(Exception):
    """A command was answered by a problem; `answer` is the whole."""

    def __init__(self, answer):
        super().__init__("%(code)s: %(detail)s" % dict({"detail": ""}, **answer))
        self.answer = answer
        self.code = answer["code"]


class Driver:
    """One client, in a process of its own. Each command is a method; `run` gives the answer, whatever it is."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        preexec_fn=end_with_parent)

    def run(self, do, **fields):
        self.process.stdin.write(json.dumps(dict(fields, do=do)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("the driver has ended: %s" % self.process.wait(TIMEOUT))
        return json.loads(line)

    def __getattr__(self, do):
        def command(**fields):
            answer = self.run(do, **fields)
            if answer["code"] != "ok":
                raise Refused(answer)
            return answer
        return command

    def close(self):
        self.process.stdin.close()
        code = self.process.wait(TIMEOUT)
        self.process.stdout.close()
        if code != 0:
            raise AssertionError("the driver ended with %d" % code)
