#!/usr/bin/env python3
"""An example: the test of a program that uses Flare, written with nothing but Python's standard library.

    FLARED=/usr/bin/flared python3 test_mailer.py

Each test has a broker of its own: `flared --ephemeral` takes a free port and a temporary directory, prints
both as one line of JSON when it is ready, and removes the directory when it is stopped. Nothing here
sleeps: a pull waits in the broker until there is something, or its time is up."""
import json
import os
import subprocess
import tempfile
import unittest
import urllib.request


class Broker:
    """A broker for one test; its log is kept in a file and shown only when the test fails."""

    def __init__(self):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([os.environ.get("FLARED", "flared"), "--ephemeral"],
                                        stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise RuntimeError("flared did not start:\n" + self.read_log())
        self.ready = json.loads(line)

    def read_log(self):
        self.log.seek(0)
        return self.log.read()

    def stop(self):
        self.process.terminate()
        status = self.process.wait(timeout=30)
        self.process.stdout.close()
        return status

    def request(self, method, path, document=None):
        """The answer's document; urllib.error.HTTPError unless the status is 2xx."""
        request = urllib.request.Request(
            "http://%s/v1/topics/%s" % (self.ready["http"], path), method=method,
            data=None if document is None else json.dumps(document).encode(),
            headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")


def mail_one(broker, mails, wait="0s", crashes=False):
    """The program under test: takes one order, sends its mail, acknowledges it. Whether there was one."""
    messages = broker.request("POST", "orders/subscriptions/mail/pull", {"max": 1, "wait": wait})["messages"]
    for message in messages:
        mails.append(message["body"])
        if not crashes:
            broker.request("POST", "orders/subscriptions/mail/ack", {"receipts": [message["receipt"]]})
    return len(messages) > 0


class TestMailer(unittest.TestCase):
    def run(self, result=None):
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            print(self.broker.read_log())
        self.broker.log.close()

    def setUp(self):
        self.broker = Broker()
        self.addCleanup(self.stop)
        self.broker.request("PUT", "orders", {"shards": 1})
        self.broker.request("PUT", "orders/subscriptions/mail", {"lease": "100ms", "max_attempts": 2})

    def stop(self):
        self.assertEqual(self.broker.stop(), 0)
        self.assertFalse(os.path.exists(self.broker.ready["data"]), "the data is removed")

    def depths(self):
        answer = self.broker.request("GET", "orders/subscriptions/mail")
        return {"enqueued": answer["enqueue_queue"]["depth"],
                **{name: answer["delivery_queue"][name] for name in ("leased", "scheduled", "dead")}}

    def test_mails_each_order_once(self):
        mails = []
        self.broker.request("POST", "orders/batch", {"messages": [{"body": "one"}, {"body": "two"}]})
        while mail_one(self.broker, mails):
            pass
        self.assertEqual(mails, ["one", "two"])
        self.assertEqual(self.depths(), {"enqueued": 0, "leased": 0, "scheduled": 0, "dead": 0})

    def test_crash_loses_no_order(self):
        mails = []
        self.broker.request("POST", "orders/batch", {"messages": [{"body": "one"}]})
        self.assertTrue(mail_one(self.broker, mails, crashes=True))
        self.assertTrue(mail_one(self.broker, mails, wait="20s"), "it comes again when its lease is over")
        self.assertEqual(mails, ["one", "one"])
        self.assertEqual(self.depths(), {"enqueued": 0, "leased": 0, "scheduled": 0, "dead": 0})


if __name__ == "__main__":
    unittest.main()
