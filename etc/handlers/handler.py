#!/usr/bin/env python3
"""A handler for the worker's sink "exec", mode = "stream": copy it, and change handle().

    [sink.orders]
    type = "exec"
    command = ["/usr/local/share/worker/handlers/handler.py"]

The worker starts it once and writes one JSON object a line to its standard input:

    {"seq":1,"topic":"orders","partition":0,"offset":12,"key":"7","value":"..."}

It answers on standard output: {"ack": N} when everything up to seq N is done, or {"fail": N, "reason": "...",
"retry": false} for record N alone. Nothing else may go to standard output: print(..., file=sys.stderr) is for the
worker's log. Needs Python 3.8 or newer and nothing else.
"""

import base64
import json
import os
import sys


class Reject(Exception):
    """This record can never be done: it goes where on_failure says."""


class Again(Exception):
    """This record has to be tried again. Any other exception but Reject says the same."""


def handle(record):
    """Does the work for one record. What it has done when it returns counts as done.

    raise Reject("why") for a record that is wrong; any other exception asks for another try.
    The same record may come again after a crash, so doing it twice must do no harm.
    """
    value = text(record, "value")
    print(f"{record['topic']} {record['offset']}: {value}", file=sys.stderr)


waiting = {}


def is_in_turn(record):
    """Whether what was before it in its partition is done, so that the order holds when a record asks for another try.

    That one comes again first, or never, if it was given up. What was on the way behind it is sent back, and comes
    again in its order; so what comes a second time is in turn. Leave this out if the order does not matter.
    """
    place = (record["topic"], record["partition"])
    if record["offset"] > waiting.get(place, record["offset"]):
        waiting[place] = record["offset"]
        return False
    waiting.pop(place, None)
    return True


def text(record, name):
    """A key or value: str, None for null, bytes for what is no UTF-8."""
    coded = record.get(name + "_base64")
    return base64.b64decode(coded) if coded is not None else record[name]


def answer(**members):
    """One answer, at once: the worker waits for it."""
    os.write(1, (json.dumps(members) + "\n").encode())


def main():
    rest = b""
    # What is there is taken at once, and acknowledged by its last number. Never wait for more before answering.
    while chunk := os.read(0, 1 << 16):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        done = None
        for line in lines:
            record = json.loads(line)
            try:
                if not is_in_turn(record):
                    raise Again("a record before it is to be tried again")
                handle(record)
                done = record["seq"]
            except Exception as error:
                if done is not None:
                    answer(ack=done)
                    done = None
                retry = not isinstance(error, Reject)
                if retry:
                    waiting.setdefault((record["topic"], record["partition"]), record["offset"])
                answer(fail=record["seq"], reason=f"{type(error).__name__}: {error}", retry=retry)
        if done is not None:
            answer(ack=done)
    # The worker has closed the input: it stops, or wants the handler started anew.


if __name__ == "__main__":
    main()
