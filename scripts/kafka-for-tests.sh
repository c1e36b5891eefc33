#!/bin/sh
# Fetches Apache Kafka for the tests that need a real one, or says that those will be skipped.
# With CI=true nothing may be skipped: then what is missing is an error.
set -eu
cd "$(dirname "$0")/.."
if [ "${CI:-}" = true ]; then
    exec tests/kafka/fetch.sh >/dev/null
fi
tests/kafka/fetch.sh >/dev/null && exit 0
cat >&2 <<'TEXT'
SKIPPED: the tests against a real Apache Kafka, for the reason above. They need a JDK 17 or newer and
Maven. All others run; the embedded broker stands in for Kafka there.
TEXT
