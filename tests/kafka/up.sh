#!/bin/sh
# One Kafka node for a person, on 127.0.0.1:9092 (PORT=... for another port), in the background,
# with the six topics that the worker's example configuration reads. down.sh stops it.
# VERSION=4.1.1: that one instead of 3.9.1; in a directory of its own, and at a port of its own if both are to run.
# Its data stay in target/kafka/run, so that it goes on where it was; remove that to start afresh.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
port=${PORT:-9092}
controller_port=${CONTROLLER_PORT:-$((port + 1))}
found=$("$here/fetch.sh" ${VERSION:+"$VERSION"})
lib=$(echo "$found" | sed -n 1p)
tool=$(echo "$found" | sed -n 2p)
archive=$(echo "$found" | sed -n 3p)
# As down.sh writes it.
base=$(cd "$(dirname "$(dirname "$lib")")" && pwd)
run=$base/run${VERSION:+-$VERSION}
bin=$base/bin${VERSION:+-$VERSION}
pidfile=$run/pid
stop="${CARGO_TARGET_DIR:+CARGO_TARGET_DIR=$CARGO_TARGET_DIR }${VERSION:+VERSION=$VERSION }$here/down.sh"
topics='SCHEDULE-STATION-PARAM SCHEDULE-CAR-ORDER SCHEDULE-CAR-PRICE SCHEDULE-DEVICE-HOST-DCDC SCHEDULE-DEVICE-STORAGE MODULE-OUTPUT-PV_PREDICTION'

fail() {
    echo "kafka: $1" >&2
    exit 1
}
# Ours, and not another process that got the number since.
alive() {
    [ -s "$pidfile" ] && ps -p "$(cat "$pidfile")" -o args= 2>/dev/null | grep -q "$run/server.properties"
}
next() {
    cat <<TEXT
Kafka runs at 127.0.0.1:$1 (pid $(cat "$pidfile"), log $run/node.log). To try:
  echo '{"id":1}' | $bin/kafka-console-producer --bootstrap-server 127.0.0.1:$1 --topic SCHEDULE-CAR-ORDER
  $bin/kafka-console-consumer --bootstrap-server 127.0.0.1:$1 --topic SCHEDULE-CAR-ORDER --from-beginning
  $bin/kafka-consumer-groups --bootstrap-server 127.0.0.1:$1 --describe --all-groups
  $bin/kafka-producer-perf-test --topic SCHEDULE-CAR-ORDER --num-records 100000 --record-size 100 --throughput -1 --producer-props bootstrap.servers=127.0.0.1:$1
  $stop
TEXT
}
# Kafka 3.9 looks for the first, 4.x for the second.
logging="-Dlog4j.configuration='file:$here/log4j-tools.properties' -Dlog4j2.configurationFile='file:$here/log4j2-tools.properties'"
wrapper() { # name, class, heap
    cat > "$bin/$1" <<TEXT
#!/bin/sh
exec java -Xmx${3:-256m} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:SharedArchiveFile='$archive' $logging -cp '$lib/*' $2 "\$@"
TEXT
    chmod +x "$bin/$1"
}

mkdir -p "$run" "$bin"
if alive; then
    running=$(sed -n 's/^advertised.listeners=.*:\([0-9]*\)$/\1/p' "$run/server.properties")
    echo "kafka: runs already"
    next "$running"
    [ "$running" = "$port" ] || fail "it is not at port $port, as asked; stop it first: $stop"
    exit 0
fi
wrapper kafka-topics org.apache.kafka.tools.TopicCommand
wrapper kafka-configs kafka.admin.ConfigCommand
# They have moved in 4.0.
case $(basename "$(dirname "$lib")") in
    3.*) producer=kafka.tools.ConsoleProducer versions=kafka.admin.BrokerApiVersionsCommand ;;
    *) producer=org.apache.kafka.tools.ConsoleProducer versions=org.apache.kafka.tools.BrokerApiVersionsCommand ;;
esac
wrapper kafka-console-producer $producer
wrapper kafka-console-consumer org.apache.kafka.tools.consumer.ConsoleConsumer
wrapper kafka-consumer-groups org.apache.kafka.tools.consumer.group.ConsumerGroupCommand
wrapper kafka-get-offsets org.apache.kafka.tools.GetOffsetShell
wrapper kafka-producer-perf-test org.apache.kafka.tools.ProducerPerformance 512m
wrapper kafka-consumer-perf-test org.apache.kafka.tools.ConsumerPerformance 512m
wrapper kafka-delete-records org.apache.kafka.tools.DeleteRecordsCommand
wrapper kafka-reassign-partitions org.apache.kafka.tools.reassign.ReassignPartitionsCommand
wrapper kafka-leader-election org.apache.kafka.tools.LeaderElectionCommand
wrapper kafka-broker-api-versions $versions
wrapper kafka-transactions org.apache.kafka.tools.TransactionsCommand
wrapper kafka-dump-log kafka.tools.DumpLogSegments

sed -e "s/@NODE@/1/; s/@PORT@/$port/; s/@CONTROLLER_PORT@/$controller_port/; s/@REPLICAS@/1/; s/@MIN_ISR@/1/" \
    -e "s/@VOTERS@/1@127.0.0.1:$controller_port/; s|@DIR@|$run/data|" "$here/server.properties" > "$run/server.properties"
[ -e "$run/data/meta.properties" ] ||
    java -Dlog4j.configuration="file:$here/log4j-tools.properties" \
        -Dlog4j2.configurationFile="file:$here/log4j2-tools.properties" -cp "$lib/*" kafka.tools.StorageTool \
        format -t worker-kafka-run-00001w -c "$run/server.properties" > "$run/format.log" 2>&1 ||
    { cat "$run/format.log" >&2; fail "its storage in $run/data can't be formatted"; }

rm -f "$run/node.log" # of an earlier run
nohup java -Xms128m -Xmx512m -XX:+UseSerialGC -XX:SharedArchiveFile="$archive" -Dnode.log="$run/node.log" \
    -Dlog4j.configuration="file:$here/log4j.properties" -Dlog4j2.configurationFile="file:$here/log4j2.properties" -cp "$lib/*" \
    kafka.Kafka "$run/server.properties" > "$run/stdout.log" 2>&1 < /dev/null &
pid=$!
echo $pid > "$pidfile"
waited=0
until grep -q 'Kafka Server started' "$run/stdout.log"; do
    if ! kill -0 $pid 2>/dev/null; then
        rm -f "$pidfile"
        taken=$(sed -n 's/.*failed to bind to \(.*\): Address already in use.*/\1/p' "$run/node.log" "$run/stdout.log" | tail -n 1)
        [ -z "$taken" ] ||
            fail "$taken is in use by another program; stop that, or choose another port: PORT=19092 $0 (it takes PORT and PORT+1)"
        tail -n 20 "$run/node.log" "$run/stdout.log" >&2
        fail "it ended while starting; the lines above are its last"
    fi
    [ $waited -lt 300 ] || fail "not up after 60 s; see $run/node.log, and stop it: $stop"
    waited=$((waited + 1))
    sleep 0.2
done

# The answer to each request: its number, "ok" or "error", and the reason (fields parted by \037).
answers=$(for topic in $topics; do
    printf '%s\037create\037%s\0371\037\n' "$topic" "$topic"
done | java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j.configuration="file:$here/log4j-tools.properties" \
    -Dlog4j2.configurationFile="file:$here/log4j2-tools.properties" -cp "$lib/*:$tool" Tool "127.0.0.1:$port" | tr '\037' ' ')
for topic in $topics; do
    echo "$answers" | grep -q "^$topic ok\|^$topic error TopicExistsException" ||
        fail "it runs, but topic $topic can't be created: $(echo "$answers" | grep "^$topic ")"
done
next "$port"
