#!/bin/sh
# Makes the user under which the service runs, if there is none, and gives it its directory.
# Arguments: the directory of its data, that of its log. Called by `make install` as root.
set -eu
data=$1
logs=$2
if ! id worker >/dev/null 2>&1; then
    nologin=$(command -v nologin || echo /usr/sbin/nologin)
    if command -v useradd >/dev/null; then
        useradd --system --user-group --home-dir "$data" --no-create-home --shell "$nologin" worker
    elif command -v adduser >/dev/null && command -v addgroup >/dev/null; then # busybox
        addgroup -S worker
        adduser -S -D -H -h "$data" -s "$nologin" -G worker worker
    else
        echo 'There is no user worker, and neither useradd nor adduser to make it; without it the init script runs the worker as root' >&2
        exit 0
    fi
    echo "made      the user worker"
fi
group=$(id -g worker)
# Only what is still root's: an owner that somebody has chosen stays. What is inside was written by a
# worker that ran as root.
[ "$(stat -c %u "$data")" != 0 ] || chown -R "worker:$group" "$data"
# root opens the log for it; so nobody else can put a link there.
[ "$(stat -c %u:%g "$logs")" != 0:0 ] || chown "root:$group" "$logs"
