#!/usr/bin/env bash
# A real Apache Kafka (KRaft, broker and controller in one process) on 127.0.0.1, for tests and benchmarks.
#
#   kafka.sh start PORT DIR [BROKERS]   prints the bootstrap address once every broker is up
#   kafka.sh stop PORT DIR              SIGTERM; the data stay in DIR, and start on the same DIR takes them up again
#   kafka.sh kill PORT DIR              SIGKILL, as a crash would
#   kafka.sh status PORT DIR            exit 0 if every broker is up
#   kafka.sh pid PORT DIR [NODE]        the process id of broker NODE (1), to stop, continue or kill it
#   kafka.sh tool CLASS ARGS...         a command-line tool, such as TopicCommand, under org.apache.kafka.tools
#   kafka.sh classpath                  the jars of pom.xml, for judge.sh
#
# Broker i (from 1) listens on PORT+i-1 for clients, PORT+50+i-1 for SASL_SSL (if asked for), PORT+100+i-1 as controller
# and PORT+150+i-1 for the other brokers, for itself and for who must get by a proxy. The caller picks ports that are free.
#
#   KAFKA_HEAP (768m)        heap of each broker
#   KAFKA_JVM                more JVM options, split at blanks
#   KAFKA_EXTRA              more server properties, one to a line
#   KAFKA_ADVERTISED=P       clients are told P+i-1 instead of PORT+i-1, so that a proxy can stand in front; what
#                            brokers say among themselves never goes through it
#   KAFKA_INTERNAL=P         brokers are told P+i-1 of each other instead of PORT+150+i-1, likewise
#   KAFKA_SECURITY=scram-tls adds the SASL_SSL listener: SCRAM-SHA-512 for KAFKA_USER (millstream) with KAFKA_PASSWORD
#                            (millstream-secret), a certificate for 127.0.0.1 and localhost signed by DIR/ca.pem.
#                            Wanted from the first start of DIR on: Kafka takes users when it formats its storage
#   KAFKA_OWNER=PID          SIGKILL the brokers when that process is gone (a test run that was killed)
#   KAFKA_CACHE              what Maven resolved, by content: any number of clones can share it
#                            (${XDG_CACHE_HOME:-~/.cache}/millstream/kafka)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${KAFKA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/millstream/kafka}
cluster=AAAAAAAAAAAAAAAAAAAAAA

complete() { # CLASSPATH_FILE: are all its jars there still?
  local jar
  [[ -s $1 ]] || return 1
  while IFS= read -r -d : jar; do [[ -e $jar ]] || return 1; done <"$1"
}

classpath() {
  local file
  file=$cache/classpath-$(sha256sum <"$here/pom.xml" | cut -c1-16)
  if ! complete "$file"; then
    mkdir -p "$cache"
    (
      flock 9
      complete "$file" && exit
      mvn -B -ntp -q -f "$here/pom.xml" dependency:build-classpath -Dmdep.outputFile="$file.new" >&2
      mv "$file.new" "$file"
    ) 9>"$cache/lock"
  fi
  cat "$file"
}

# Short-lived JVMs gain more from a quick start than from the second compiler.
run_java() { # HEAP LOG_LEVEL CLASS ARGS...
  exec java "-Xmx$1" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dlog4j2.level="$2" -cp "$(classpath)" "${@:3}"
}

alive() { # NODE_DIR: is the process in its pid file still that broker?
  [[ -s $1/pid ]] && tr '\0' '\n' 2>/dev/null <"/proc/$(<"$1/pid")/cmdline" | grep -qxF "$1/server.properties"
}

node_dirs() { # DIR: every broker's folder, absolute
  local dir
  for dir in "$(cd "$1" && pwd)"/*/data; do echo "${dir%/data}"; done
}

make_certificates() { # DIR: ca.pem for clients; server.pem (key and chain) for brokers
  [[ ! -s $1/server.pem ]] || return 0
  (
    cd "$1"
    umask 077
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj '/CN=Millstream test CA' -keyout ca.key -out ca.pem
    openssl req -newkey rsa:2048 -nodes -subj '/CN=127.0.0.1' -keyout server.key -out server.csr
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -out server.crt \
      -extfile <(echo 'subjectAltName=IP:127.0.0.1,DNS:localhost')
    cat server.key server.crt ca.pem >server.pem
    rm ca.key server.csr server.key server.crt
  ) >"$1/certificates.log" 2>&1 || { cat "$1/certificates.log" >&2; return 1; }
}

security_properties() { # DIR
  cat <<EOF2
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location=$1/server.pem
EOF2
}

write_properties() { # NODE PORT DIR BROKERS
  local node=$1 port=$2 dir=$3 n=$4 voters='' rf=1 isr=1 i last
  last=$((node - 1))
  for ((i = 1; i <= n; i++)); do voters+="${voters:+,}$i@127.0.0.1:$((port + 99 + i))"; done
  if ((n >= 3)); then rf=3 isr=2; fi
  local secure='' security=''
  if [[ ${KAFKA_SECURITY:-} == scram-tls ]]; then
    secure=,SECURE://127.0.0.1:$((port + 50 + last))
    security=$(security_properties "$dir")
  fi
  # Timestamps in the tests are as old as 0 and as late as the year 9999; nothing may expire or be refused for that.
  cat >"$dir/$node/server.properties" <<EOF2
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$voters
listeners=CLIENT://127.0.0.1:$((port + last)),INTERNAL://127.0.0.1:$((port + 150 + last)),CONTROLLER://127.0.0.1:$((port + 100 + last))$secure
advertised.listeners=CLIENT://127.0.0.1:$((${KAFKA_ADVERTISED:-$port} + last)),INTERNAL://127.0.0.1:$((${KAFKA_INTERNAL:-$((port + 150))} + last))$secure
listener.security.protocol.map=CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
inter.broker.listener.name=INTERNAL
controller.listener.names=CONTROLLER
log.dirs=$dir/$node/data
log.retention.ms=-1
log.message.timestamp.after.max.ms=9223372036854775807
default.replication.factor=$rf
min.insync.replicas=$isr
offsets.topic.replication.factor=$rf
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$rf
transaction.state.log.min.isr=$isr
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$rf
share.coordinator.state.topic.min.isr=$isr
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
$security
${KAFKA_EXTRA:-}
EOF2
}

format() { # NODE_DIR
  local scram=()
  [[ ! -f $1/data/meta.properties ]] || return 0
  if [[ ${KAFKA_SECURITY:-} == scram-tls ]]; then
    scram=(--add-scram "SCRAM-SHA-512=[name=${KAFKA_USER:-millstream},password=${KAFKA_PASSWORD:-millstream-secret}]")
  fi
  mkdir -p "$1/data"
  (run_java 128m warn kafka.tools.StorageTool format --cluster-id $cluster --config "$1/server.properties" \
    "${scram[@]}") >"$1/format.log" 2>&1 || { cat "$1/format.log" >&2; return 1; }
}

# The broker's process may not be java yet when this begins: that it isn't `alive` says nothing here.
kill_after_owner() { # OWNER NODE_DIR PID
  while [[ -d /proc/$1 && -d /proc/$3 ]]; do sleep 1; done
  if [[ ! -d /proc/$1 ]] && alive "$2" && [[ $(<"$2/pid") == "$3" ]]; then kill -9 "$3"; fi
}

launch() { # NODE_DIR CLASSPATH
  : >"$1/log"
  # shellcheck disable=SC2086 # KAFKA_JVM is split at blanks on purpose
  setsid java "-Xmx${KAFKA_HEAP:-768m}" ${KAFKA_JVM:-} -Dlog4j2.level=info -cp "$2" kafka.Kafka "$1/server.properties" \
    </dev/null >>"$1/log" 2>&1 &
  echo $! >"$1/pid"
  if [[ -n ${KAFKA_OWNER:-} ]]; then kill_after_owner "$KAFKA_OWNER" "$1" $! </dev/null >/dev/null 2>&1 & fi
}

start() { # PORT DIR [BROKERS]
  local port=$1 dir=$2 n=${3:-1} i cp
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  cp=$(classpath)
  if [[ ${KAFKA_SECURITY:-} == scram-tls ]]; then make_certificates "$dir"; fi
  for ((i = 1; i <= n; i++)); do
    if alive "$dir/$i"; then continue; fi
    mkdir -p "$dir/$i"
    write_properties "$i" "$port" "$dir" "$n"
    format "$dir/$i"
    launch "$dir/$i" "$cp"
  done
  for ((i = 1; i <= n; i++)); do
    until grep -q 'Kafka Server started' "$dir/$i/log"; do
      kill -0 "$(<"$dir/$i/pid")" 2>/dev/null || { echo "broker $i did not start; see $dir/$i/log" >&2; return 1; }
      sleep 0.05
    done
  done
  echo "127.0.0.1:$port"
}

stop() { # PORT DIR
  local node_dir i
  for node_dir in $(node_dirs "$2"); do
    if alive "$node_dir"; then kill "$(<"$node_dir/pid")"; fi
  done
  for node_dir in $(node_dirs "$2"); do
    for ((i = 0; i < 300; i++)); do alive "$node_dir" || break; sleep 0.1; done
    if alive "$node_dir"; then echo "killing $(<"$node_dir/pid"), which ignored SIGTERM" >&2; kill -9 "$(<"$node_dir/pid")"; fi
    rm -f "$node_dir/pid"
  done
}

crash() { # PORT DIR
  local node_dir
  for node_dir in $(node_dirs "$2"); do
    if alive "$node_dir"; then kill -9 "$(<"$node_dir/pid")"; fi
  done
  for node_dir in $(node_dirs "$2"); do
    while alive "$node_dir"; do sleep 0.02; done
    rm -f "$node_dir/pid"
  done
}

status() { # PORT DIR
  local node_dir down=0
  for node_dir in $(node_dirs "$2"); do
    if alive "$node_dir"; then echo "broker ${node_dir##*/}: up, pid $(<"$node_dir/pid")"; else echo "broker ${node_dir##*/}: down"; down=1; fi
  done
  return $down
}

pid() { # PORT DIR [NODE]
  local node_dir
  node_dir=$(cd "$2/${3:-1}" && pwd)
  alive "$node_dir" || { echo "broker ${3:-1} is down" >&2; return 1; }
  cat "$node_dir/pid"
}

case ${1:-} in
  start | stop | status | pid | classpath) "$@" ;;
  kill) crash "${@:2}" ;;
  tool) run_java 256m warn "org.apache.kafka.tools.$2" "${@:3}" ;;
  *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
