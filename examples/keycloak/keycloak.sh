#!/bin/bash
# A real Keycloak 26.7.3 as the demo's identity provider: the same script makes the image (see Dockerfile)
# and the process of a run without Kubernetes.
#
#   keycloak.sh fetch    DIST        get the distribution from Maven Central and unpack it        (mvn)
#   keycloak.sh augment  DIST        fix the build options, once for each distribution            (java 17)
#   keycloak.sh snapshot DIST OUT    import the realm into a fresh database and keep it in OUT, with
#                                    an archive of loaded classes: a start takes seconds then     (java 17)
#   keycloak.sh run      DIST OUT    start from a copy of that database, in the foreground
#
# The issuer is $KC_HOSTNAME/realms/corp and is not part of the snapshot. What is: HR_TOOLS_URL, HR_TOOLS_AUTHENTICATOR
# and HR_TOOLS_SECRET, which Keycloak puts into realm-corp.json as it imports it (the defaults are those of the cluster
# demo), the signing keys, and the administrator admin/admin.
set -eu
VERSION=26.7.3
REALM=${REALM:-$(cd "$(dirname "$0")" && pwd)/realm-corp.json}
# The demo needs no feature that is off by default. What is off here is not used, and each costs start time.
OFF=kerberos,organization,passkeys,web-authn,workflows,account,account-api,admin,twitter-broker,identity-brokering-api,device-flow,impersonation,recovery-codes,update-email,authorization,admin-fine-grained-authz,opentelemetry,step-up-authentication-saml
# Serial collector, first compiler tier, small heap: least CPU to start. This replaces the options of kc.sh itself.
JVM="-Xms128m -Xmx320m -XX:MaxMetaspaceSize=192m -XX:ReservedCodeCacheSize=64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xss512k -XX:+ExitOnOutOfMemoryError -Dfile.encoding=UTF-8 -Djava.security.egd=file:/dev/urandom"

fetch() {
  mkdir -p "$1.part"
  mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.0:copy \
    -Dartifact="org.keycloak:keycloak-quarkus-dist:$VERSION:tar.gz" -DoutputDirectory="$1.part"
  tar -xzf "$1.part/keycloak-quarkus-dist-$VERSION.tar.gz" -C "$1.part" --strip-components=1
  rm "$1.part/keycloak-quarkus-dist-$VERSION.tar.gz"
  mv "$1.part" "$1"
}

augment() {
  # Who shows a certificate may have tokens that are bound to it; everybody else is served as ever.
  "$1/bin/kc.sh" build --db=dev-file --health-enabled=true --https-client-auth=request --features-disabled="$OFF"
}

get() { # port, path on loopback; succeeds on 200. The image has no curl.
  local line
  exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
  printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' "$2" >&3
  IFS= read -r -t 5 line <&3 || line=
  exec 3>&-
  [[ $line == "HTTP/1."?" 200 "* ]]
}

start() { # DIST, folder of the database, options of the JVM, arguments
  dist=$1 data=$2 jvm=$3
  shift 3
  export JAVA_OPTS="$jvm -Djava.io.tmpdir=$data"
  # JGroups would listen on every address without --cache=local.
  exec "$dist/bin/kc.sh" start --optimized --cache=local \
    --db-url="jdbc:h2:file:$data/keycloakdb;NON_KEYWORDS=VALUE;DB_CLOSE_ON_EXIT=FALSE" \
    --log-level="${KC_LOG_LEVEL:-info,io.smallrye.health:error}" --spi-events-listener--jboss-logging--success-level=info "$@"
}

snapshot() {
  work=$2.part port=${SNAPSHOT_PORT:-18790} mgmt=${SNAPSHOT_MANAGEMENT_PORT:-18791}
  rm -rf "$work" "$1/data/import"
  mkdir -p "$work" "$1/data/import"
  cp "$REALM" "$1/data/import/"
  (KC_BOOTSTRAP_ADMIN_USERNAME=admin KC_BOOTSTRAP_ADMIN_PASSWORD=admin
    export KC_BOOTSTRAP_ADMIN_USERNAME KC_BOOTSTRAP_ADMIN_PASSWORD
    unset KC_HOSTNAME
    start "$1" "$work" "$JVM -XX:ArchiveClassesAtExit=$work/classes.jsa" --import-realm \
      --http-enabled=true --http-host=127.0.0.1 --http-port="$port" --hostname="http://127.0.0.1:$port" \
      --http-management-host=127.0.0.1 --http-management-port="$mgmt") >"$work/log" 2>&1 &
  pid=$!
  n=0
  until get "$mgmt" /health/ready 2>/dev/null; do
    n=$((n + 1))
    if ! kill -0 $pid 2>/dev/null || [ $n -gt 600 ]; then tail -30 "$work/log" >&2; exit 1; fi
    sleep 0.3
  done
  # The classes that these need get into the archive too.
  get "$port" /realms/corp/.well-known/openid-configuration && get "$port" /realms/corp/protocol/openid-connect/certs
  kill $pid
  wait $pid || [ $? = 143 ]
  rm -rf "$1/data/import" "$2"
  mkdir "$2"
  mv "$work/keycloakdb.mv.db" "$work/classes.jsa" "$2/"
  rm -rf "$work"
}

run() {
  data=${KC_DATA:-$2/run}
  # In the image Keycloak's own data folder is a link to the second.
  mkdir -p "$data" "$data/keycloak"
  cp "$2/keycloakdb.mv.db" "$data/"
  dist=$1 out=$2
  shift 2
  start "$dist" "$data" "$JVM -XX:SharedArchiveFile=$out/classes.jsa ${KC_JVM:-}" "$@"
}

cmd=${1:-}
[ $# -ge 2 ] && shift || { sed -n '5,10s/^# *//p' "$0" >&2; exit 2; }
case $cmd in
fetch | augment | snapshot | run) "$cmd" "$@" ;;
*) sed -n '5,10s/^# *//p' "$0" >&2; exit 2 ;;
esac
