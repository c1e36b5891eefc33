#!/bin/sh
# fetch.sh [VERSION]: brings Apache Kafka (3.9.1, or 4.1.1 or another of that line) into
# target/kafka/<version>/lib, and compiles Tool.java beside it; once.
# Prints the two directories, that of the jars and that of the compiled tool, and an archive of
# classes, with which a JVM starts about a second sooner.
# Two runs at the same time do no harm: each works in a directory of its own, the first rename wins.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
version=${1:-$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/pom.xml")}
case $version in
    3.*) profile= ;;
    *) profile=log4j2 ;;
esac
target=${CARGO_TARGET_DIR:-$root/target}
case $target in
    /*) ;;
    *) target=$PWD/$target ;;
esac
base=$target/kafka/$version
lib=$base/lib
archive=$base/classes.jsa
tool=$base/tool-$(cksum < "$here/Tool.java" | tr ' ' '-')

fail() {
    echo "kafka for tests: $1" >&2
    exit 1
}

install='install a JDK, 17 or newer (Debian: apt-get install openjdk-17-jdk-headless; Fedora: dnf install java-17-openjdk-devel)'
command -v java >/dev/null || fail "java is missing; $install"
if [ -e "$lib/.complete" ] && [ -e "$tool/Tool.class" ] && [ -e "$archive" ]; then
    printf '%s\n' "$lib" "$tool" "$archive"
    exit 0
fi
command -v javac >/dev/null || fail "javac is missing (a JRE is not enough); $install"
major=$(javac -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p')
[ "${major:-0}" -ge 17 ] || fail "javac is version ${major:-unknown}; $install"

mkdir -p "$base"
base=$(cd "$base" && pwd)
work=$base/.work.$$
node=
trap '[ -z "$node" ] || kill -9 "$node" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$work"

if [ ! -e "$lib/.complete" ]; then
    command -v mvn >/dev/null || fail "mvn is missing; install Maven (Debian: apt-get install maven; Fedora: dnf install maven)"
    echo "kafka for tests: fetching Apache Kafka $version (56 MB, once)" >&2
    mvn -q -B -f "$here/pom.xml" "-Dkafka.version=$version" ${profile:+-P "$profile"} dependency:copy-dependencies -DincludeScope=runtime \
        -DoutputDirectory="$work/lib" >"$work/mvn.log" 2>&1 || {
        cat "$work/mvn.log" >&2
        fail "mvn could not fetch Apache Kafka $version; the lines above are its reason (network? proxy or mirror in ~/.m2/settings.xml?)"
    }
    : > "$work/lib/.complete"
    mv "$work/lib" "$base/" 2>/dev/null || [ -e "$lib/.complete" ] ||
        fail "$lib is in the way and incomplete; remove it"
fi

if [ ! -e "$tool/Tool.class" ]; then
    name=$(basename "$tool")
    javac -nowarn -d "$work/$name" -cp "$lib/*" "$here/Tool.java" || fail "Tool.java does not compile"
    mv "$work/$name" "$base/" 2>/dev/null || [ -e "$tool/Tool.class" ] || fail "$tool is in the way; remove it"
fi

# The classes that a node loads, parsed once and for all (JEP 350). A node has to run for that; where
# it can't, for instance as its ports are taken, there is an empty file instead, and nodes start slower.
warm_up() {
    port=$((20000 + $$ % 10000 * 2))
    sed -e "s/@NODE@/1/; s/@PORT@/$port/; s/@CONTROLLER_PORT@/$((port + 1))/; s/@REPLICAS@/1/; s/@MIN_ISR@/1/" \
        -e "s/@VOTERS@/1@127.0.0.1:$((port + 1))/; s|@DIR@|$work/data|" "$here/server.properties" > "$work/server.properties"
    java -Dlog4j.configuration="file:$here/log4j-tools.properties" \
        -Dlog4j2.configurationFile="file:$here/log4j2-tools.properties" -cp "$lib/*" kafka.tools.StorageTool \
        format -t worker-kafka-warm-0001 -c "$work/server.properties" > "$work/format.log" 2>&1 || return 1
    java -XX:+UseSerialGC -XX:ArchiveClassesAtExit="$work/classes.jsa" -Dnode.log="$work/node.log" \
        -Dlog4j.configuration="file:$here/log4j.properties" \
        -Dlog4j2.configurationFile="file:$here/log4j2.properties" -cp "$lib/*" \
        kafka.Kafka "$work/server.properties" > "$work/stdout.log" 2>&1 < /dev/null &
    node=$!
    waited=0
    until grep -q 'Kafka Server started' "$work/stdout.log" || [ $waited -ge 300 ] || ! kill -0 $node 2>/dev/null; do
        waited=$((waited + 1))
        sleep 0.2
    done
    kill $node 2>/dev/null || true
    wait $node || true
    node=
    [ -s "$work/classes.jsa" ]
}
if [ ! -e "$archive" ]; then
    warm_up || : > "$work/classes.jsa"
    mv -f "$work/classes.jsa" "$archive"
fi
printf '%s\n' "$lib" "$tool" "$archive"
