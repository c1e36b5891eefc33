#!/bin/sh
# A handler for the worker's sink "exec", mode = "batch": one run for each batch. Copy it, and change what is marked.
#
#   [sink.orders]
#   type = "exec"
#   command = ["/usr/local/share/worker/handlers/handler.sh", "/var/lib/worker/orders.jsonl"]
#   mode = "batch"
#
# The records come on standard input, one JSON object a line, and then its end. The exit code is the answer for all:
#   0   all are done
#   75  try again later, with the same records
#   any other one: something is wrong with one of them. The worker halves the batch and runs this again, until it is
#   one record, which goes where on_failure says. So doing a record twice must do no harm.
# Standard output and standard error go to the worker's log.
set -u

target=${1:?usage: handler.sh FILE}

# ---- change from here: what is to be done with the lines of standard input
batch=$(mktemp) || exit 75
trap 'rm -f "$batch"' EXIT
cat >"$batch" || exit 75

if grep -q '"value":null' "$batch"; then
    echo "a record without a value" >&2
    exit 1
fi
# Another place is full or away: that is no fault of the records.
cat "$batch" >>"$target" || exit 75
# ---- to here

exit 0
