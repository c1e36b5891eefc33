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


def handle(record):
    """Does the work for one record. What it has done when it returns counts as done.

    raise Reject("why") for a record that is wrong; any other exception asks for another try.
    The same record may come again after a crash, so doing it twice must do no harm.
    """
    value = text(record, "value")
    print(f"{record['topic']} {record['offset']}: {value}", file=sys.stderr)


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
                handle(record)
                done = record["seq"]
            except Exception as error:
                if done is not None:
                    answer(ack=done)
                    done = None
                answer(fail=record["seq"], reason=f"{type(error).__name__}: {error}", retry=not isinstance(error, Reject))
        if done is not None:
            answer(ack=done)
    # The worker has closed the input: it stops, or wants the handler started anew.


if __name__ == "__main__":
    main()
