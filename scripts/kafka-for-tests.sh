#!/bin/sh
# Fetches Apache Kafka, the last line that the client 'kafka' can read and one of Kafka 4, for the tests that
# need a real one, or says that those will be skipped. With CI=true nothing may be skipped: then what is
# missing is an error.
set -eu
cd "$(dirname "$0")/.."
for version in 3.9.1 4.1.1; do
    tests/kafka/fetch.sh $version >/dev/null && continue
    [ "${CI:-}" != true ] || exit 1
    cat >&2 <<TEXT
SKIPPED: the tests against a real Apache Kafka $version, for the reason above. They need a JDK 17 or newer
and Maven. All others run; the embedded broker stands in for Kafka there.
TEXT
done
