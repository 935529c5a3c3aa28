#!/usr/bin/env -S python3 -B
"""Lets the scenario suite drive flare_wire.py; see DRIVERS in scene.py for the commands."""
import json
import sys

import flare_wire


class Handlers:
    """A stream with so many handlers: credit is one message for each that is idle, as libflare grants it."""

    def __init__(self, client, command):
        self.client = client
        self.topic = command["topic"]
        self.subscription = command["subscription"]
        options = {name: command[name] for name in ("lease_ms", "consumer") if name in command}
        self.stream = client.consume(self.topic, self.subscription, bytes=command.get("bytes", 16 << 20),
                                     messages=command.get("concurrency", 1) + command.get("prefetch", 0), **options)
        self.sizes = {}

    def take(self, count):
        deliveries = []
        while len(deliveries) < count:
            delivery = self.stream.next()
            if delivery is None:
                break
            self.sizes[delivery.receipt] = flare_wire.delivery_size(delivery)
            deliveries.append(delivery)
        return deliveries

    def verdict(self, receipt, verdict):
        kinds = {"ack": ("ack", {}), "nack": ("nack", {}), "reject": ("nack", {"reject": True})}
        code = "ok"
        if verdict in kinds:
            kind, options = kinds[verdict]
            settled = self.client.settle(kind, self.topic, self.subscription, [receipt], **options)
            code = flare_wire.CODES[settled.codes[0].code] if settled.codes else "ok"
        self.stream.credit(1, self.sizes.pop(receipt))
        return code

    def close(self):
        """Gives back what no handler has begun to work on."""
        self.stream.cancel()
        waiting = [delivery.receipt for delivery in self.stream.deliveries]
        if waiting:
            self.client.nack(self.topic, self.subscription, waiting, delay_ms=0)


def delivery_out(delivery):
    values = dict(vars(delivery))
    for name in ("id", "receipt", "body"):
        values[name] = values[name].hex()
    return values


class Driver:
    def __init__(self):
        self.client = None
        self.streams = {}
        self.started = {}  # name -> (id of the request, how to make a result of its answer)

    def run(self, command):
        do = getattr(self, "do_" + command.pop("do"))
        try:
            return dict({"code": "ok"}, **(do(command) or {}))
        except flare_wire.Failure as failure:
            return {"code": failure.slug, "detail": failure.detail}
        except (flare_wire.Lost, ConnectionError) as lost:
            return {"code": "unavailable", "detail": str(lost)}
        except TimeoutError as error:
            return {"code": "timeout", "detail": str(error)}

    def do_connect(self, command):
        self.client = flare_wire.Client(command["url"], "driver.py")
        return {"limits": vars(self.client.welcome)}

    def do_disconnect(self, _):
        self.client.close()

    def do_ping(self, _):
        self.client.ping()

    def do_topic_put(self, command):
        command["durability"] = int(command.pop("relaxed", False))
        return {"created": self.client.topic_put(**command).created}

    def do_sub_put(self, command):
        command["start"] = {"latest": 0, "earliest": 1, "time": 2}[command.get("start", "latest")]
        return {"created": self.client.sub_put(**command).created}

    # ---- requests that can be started and finished apart

    def send(self, command):
        return getattr(self, "send_" + command.pop("do"))(command)

    def complete(self, sent):
        request_id, result = sent
        return result(self.client.wait(request_id))

    def do_start(self, command):
        self.started[command["as"]] = self.send(command["command"])

    def do_finish(self, command):
        return self.complete(self.started.pop(command["as"]))

    def send_publish(self, command):
        messages = [dict(message, body=bytes.fromhex(message["body"])) for message in command["messages"]]
        batch_key = bytes.fromhex(command["batch_key"]) if "batch_key" in command else None
        return self.client.send_publish(command["topic"], messages, command.get("atomic", False),
                                        batch_key), self.published

    @staticmethod
    def published(answer):
        results = [dict(vars(result), id=result.id.hex(), code=flare_wire.CODES[result.code],
                        relaxed=answer.durability == 1) for result in answer.results]
        failed = [result["code"] for result in results if result["code"] != "ok"]
        return {"code": failed[0] if failed else "ok", "results": results}

    def send_pull(self, command):
        command.setdefault("max", 1)
        return self.client.send("pull", **command), self.pulled

    @staticmethod
    def pulled(answer):
        return {"deliveries": [delivery_out(delivery) for delivery in answer.deliveries]}

    def send_settle(self, command):
        kind = command.pop("kind")
        command["receipts"] = [{"receipt": bytes.fromhex(receipt)} for receipt in command["receipts"]]
        count = len(command["receipts"])

        def settled(answer):
            codes = [flare_wire.CODES[record.code] for record in answer.codes] or ["ok"] * count
            assert answer.count == codes.count("ok")
            failed = [code for code in codes if code != "ok"]
            return {"code": failed[0] if failed else "ok", "codes": codes}
        return self.client.send(kind, **command), settled

    def do_publish(self, command):
        return self.complete(self.send_publish(command))

    def do_pull(self, command):
        return self.complete(self.send_pull(command))

    def do_settle(self, command):
        return self.complete(self.send_settle(command))

    # ---- streams

    def do_stream(self, command):
        handlers = Handlers(self.client, command)
        self.client.ping()
        if handlers.stream.end is not None:
            raise flare_wire.Failure(handlers.stream.end.slug, handlers.stream.end.detail)
        self.streams[command["as"]] = handlers

    def do_take(self, command):
        deliveries = self.streams[command["as"]].take(command["count"])
        return {"deliveries": [delivery_out(delivery) for delivery in deliveries]}

    def do_verdict(self, command):
        self.streams[command["as"]].verdict(bytes.fromhex(command["receipt"]), command["verdict"])

    def do_end(self, command):
        return {"end": self.streams[command["as"]].stream.ended()}

    def do_close_stream(self, command):
        self.streams.pop(command["as"]).close()


driver = Driver()
for line in sys.stdin:
    print(json.dumps(driver.run(json.loads(line))), flush=True)
