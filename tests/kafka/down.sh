#!/bin/sh
# Stops the node that up.sh started, with the same VERSION; its data stay.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
run=${CARGO_TARGET_DIR:-$root/target}/kafka/run${VERSION:+-$VERSION}
[ -d "$run" ] && run=$(cd "$run" && pwd)
pidfile=$run/pid

alive() { # ours, and not another process that got the number since
    [ -s "$pidfile" ] && ps -p "$(cat "$pidfile")" -o args= 2>/dev/null | grep -q "$run/server.properties"
}
if ! alive; then
    rm -f "$pidfile"
    echo "kafka: does not run"
    exit 0
fi
pid=$(cat "$pidfile")
kill "$pid"
waited=0
while alive; do
    [ $waited -ne 100 ] || { echo "kafka: pid $pid does not stop by itself within 20 s; killed" >&2; kill -9 "$pid"; }
    [ $waited -lt 150 ] || { echo "kafka: pid $pid can't be killed" >&2; exit 1; }
    waited=$((waited + 1))
    sleep 0.2
done
rm -f "$pidfile"
echo "kafka: stopped"
