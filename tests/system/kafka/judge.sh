#!/usr/bin/env bash
# Runs the judge (judge/Judge.java, which lists the verbs): judge.sh VERB ARGS...
#
# It is compiled into kafka.sh's cache whenever its sources or the jars have changed, under a name made of their content.
# JUDGE_HEAP (1500m) is enough for a million events.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${KAFKA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/millstream/kafka}
classpath=$("$here/kafka.sh" classpath)
name=$cache/judge-$({ cat "$here"/judge/*.java; echo "$classpath"; } | sha256sum | cut -c1-16)

compile() {
  local work=$cache/judge.new
  rm -rf "$work"
  find "$cache" -maxdepth 1 -name 'judge-*' -mtime +7 -delete
  mkdir -p "$work"
  javac -Xlint:all,-processing -Werror -encoding UTF-8 --release 17 -proc:none -cp "$classpath" -d "$work" "$here"/judge/*.java
  jar --create --file "$name.jar.new" -C "$work" .
  rm -r "$work"
  mv "$name.jar.new" "$name.jar"
  # Parsed classes: a verb starts in half the time. The run may go without.
  java -XX:ArchiveClassesAtExit="$name.jsa" -Xlog:cds=off -Xlog:cds+dynamic=off -Dlog4j2.level=off \
    -cp "$name.jar:$classpath" judge.Judge warm >/dev/null 2>&1 || true
}

if [[ ! -e $name.jar ]]; then
  (flock 9 && { [[ -e $name.jar ]] || compile; }) 9>"$cache/lock" >&2
fi
# The first compiler alone is as quick for a million records as both, and twice as quick for a thousand.
exec java "-Xmx${JUDGE_HEAP:-1500m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:SharedArchiveFile="$name.jsa" -Xshare:auto \
  -Xlog:cds=off -Xlog:cds+dynamic=off -Dfile.encoding=UTF-8 -Dlog4j2.level=error -cp "$name.jar:$classpath" judge.Judge "$@"
