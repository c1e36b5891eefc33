#!/bin/sh
# guard.sh DIR COMMAND...: runs a command that must not outlive whoever started it.
# stdin is a pipe held by the owner: each line names a signal for the command. When the pipe ends,
# however the owner ended (kill -9 too), the command is killed and DIR is removed. After the line
# "keep" DIR stays. On stdout: "pid" and the command's process id, and what the command prints.
dir=$1
shift
"$@" </dev/null &
pid=$!
echo "pid $pid"
exec >/dev/null # stdout now belongs to the command alone: its end is the command's end
while read -r signal; do
    case $signal in
        keep) dir= ;;
        *) kill -s "$signal" "$pid" 2>/dev/null ;;
    esac
done
kill -s KILL "$pid" 2>/dev/null
wait "$pid"
[ -n "$dir" ] || exit 0
# Other commands may still be ending that write there: bounded, and quiet.
tries=0
until rm -rf "$dir" 2>/dev/null || [ $tries -ge 200 ]; do
    tries=$((tries + 1))
done
