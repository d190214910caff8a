# What compose/prove proves, and what each broker needs for it; sourced there.
# shellcheck shell=bash disable=SC2154,SC2034  # variables and functions are shared with compose/prove

mqtt_port=1883
rabbitmq_host=rabbitmq
amqp_port=5672
rabbitmq_mqtt_port=1883

mosquitto_on_host() {
    mqtt_port=$(free_port)
    sed "s/^listener 1883\$/listener $mqtt_port 127.0.0.1/" compose/mosquitto/mosquitto.conf >"$work/mosquitto.conf"
    chmod 0444 "$work/mosquitto.conf"
    cat >>"$work/override.yml" <<CONF
  mosquitto:
    network_mode: host
    ports: !reset []
    volumes: ["$work/mosquitto.conf:/etc/mosquitto/mosquitto.conf:ro"]
CONF
    # podman-compose 1.6 chokes on the reset of what was not set.
    [ "$what" = mosquitto ] || echo "    networks: !reset null" >>"$work/override.yml"
}

rabbitmq_on_host() {
    local distribution_port epmd_port
    rabbitmq_host=127.0.0.1
    amqp_port=$(free_port)
    rabbitmq_mqtt_port=$(free_port)
    distribution_port=$(free_port)
    epmd_port=$(free_port)
    sed -e "s/0\\.0\\.0\\.0:5672/127.0.0.1:$amqp_port/" -e "s/0\\.0\\.0\\.0:1883/127.0.0.1:$rabbitmq_mqtt_port/" \
        compose/rabbitmq/rabbitmq.conf >"$work/rabbitmq.conf"
    chmod 0444 "$work/rabbitmq.conf"
    export TOPICWARDEN_RABBITMQ_SOURCE="amqp://auditor@127.0.0.1:$amqp_port/?mode=plugin"
    cat >>"$work/override.yml" <<CONF
  rabbitmq:
    network_mode: host
    networks: !reset null
    ports: !reset []
    environment:
      RABBITMQ_NODENAME: "$PROJECT@localhost"
      RABBITMQ_DIST_PORT: "$distribution_port"
      ERL_EPMD_PORT: "$epmd_port"
    volumes: ["$work/rabbitmq.conf:/etc/rabbitmq/rabbitmq.conf:ro"]
  $(watcher_of rabbitmq):
    network_mode: host
    networks: !reset null
CONF
}

# Makes a file of the secrets folder with a command of the image, readable for one user or group of the containers.
make_secret() { # service, command
    quietly "$engine" run --rm --user 0 --network none -v "$work/secrets:/out" --entrypoint sh "$(image_of "$1")" -c "$2" ||
        die "the passwords of $1 could not be made" "" 1
}

mosquitto_passwords() {
    grep -E '^(sensor-|dashboard)' "$work/plain" >"$work/secrets/passwords"
    make_secret mosquitto \
        'mosquitto_passwd -U /out/passwords && chown root:1883 /out/passwords && chmod 0440 /out/passwords'
    export TOPICWARDEN_PASSWORDS="$work/secrets/passwords"
}

rabbitmq_passwords() {
    cp "$work/plain" "$work/secrets/plain"
    password_of auditor >"$work/secrets/auditor.password"
    make_secret rabbitmq 'make-users < /out/plain > /out/users.json && rm /out/plain &&
        chown 1885:1885 /out/users.json && chown 1884:1883 /out/auditor.password &&
        chmod 0400 /out/users.json /out/auditor.password'
    export TOPICWARDEN_RABBITMQ_USERS="$work/secrets/users.json"
    export TOPICWARDEN_AUDITOR_PASSWORD="$work/secrets/auditor.password"
}

mqtt_publish() { # user, topic, message: to Mosquitto
    inside mosquitto mosquitto_pub -h 127.0.0.1 -p "$mqtt_port" -u "$1" -P "$(password_of "$1")" -V 5 -q 1 -i "$1" \
        -t "$2" -m "$3" >"$work/published" 2>&1
}

rabbitmq_mqtt_publish() { # user, topic, message: to RabbitMQ, with the other container's tool
    inside mosquitto mosquitto_pub -h "$rabbitmq_host" -p "$rabbitmq_mqtt_port" -u "$1" -P "$(password_of "$1")" -q 1 \
        -i "$1" -t "$2" -m "$3" >"$work/published" 2>&1
}

amqp() { # tool, user, vhost, arguments
    local tool=$1 user=$2 vhost=$3
    shift 3
    inside rabbitmq "$tool" --server=127.0.0.1 --port="$amqp_port" --vhost="$vhost" --username="$user" \
        --password="$(password_of "$user")" "$@" >"$work/published" 2>&1
}

amqp_publish() { # user, exchange, key, message
    amqp amqp-publish "$1" plant --exchange="$2" --routing-key="$3" --body="$4"
}

# topicwarden's container and the broker's have no privilege and nothing to write to.
prove_confined() { # broker
    local watcher service
    watcher=$(watcher_of "$1")
    [ "$(inside "$watcher" id -u)" = 1884 ] || failed "topicwarden is not root"
    ! inside "$watcher" sh -c ': > /opt/topicwarden/x' 2>/dev/null || failed "topicwarden's file system is read-only"
    for service in "$1" "$watcher"; do
        [ "$(inside "$service" id -u)" != 0 ] || failed "$service is not root"
        ! inside "$service" sh -c ': > /usr/x' 2>/dev/null || failed "$service's file system is read-only"
        inside "$service" grep -q '^CapEff:[[:space:]]*0*$' /proc/self/status || failed "$service has no capability"
        inside "$service" grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/self/status || failed "$service can gain none"
    done
}

prove_mosquitto_findings() {
    wait_for 60 "Mosquitto" mqtt_publish sensor-1 plant/a/sensor-1/telemetry 20.0
    wait_for 60 "topicwarden" watching mosquitto
    mqtt_publish sensor-1 plant/a/sensor-1/telemetry 21.5 || failed "the broker takes what policy and acl allow"
    mqtt_publish sensor-1 plant/b/pump-7/command open || failed "the broker takes what the acl allows and the policy does not"
    mqtt_publish sensor-2 office/door open || true
    grep -q -i 'not authori[sz]ed' "$work/published" || failed "the broker refuses what the acl does not allow"
    wait_for 30 "the finding" found mosquitto '"TW201"' sensor-1 plant/b/pump-7/command || failed "the deviation was found"
    proved "a publish Mosquitto granted and the policy does not intend is reported (TW201)"
    # One refusal is no finding (TW301 has a threshold), thirty are.
    inside mosquitto sh -c "seq 30 | mosquitto_pub -h 127.0.0.1 -p $mqtt_port -u sensor-2 -P '$(password_of sensor-2)' -l -t office/door" ||
        failed "thirty more publishes are sent"
    wait_for 30 "the refusals" found mosquitto '"TW301"' sensor-2 office/door || failed "the refused publishes were reported"
    proved "publishes Mosquitto refuses again and again are reported (TW301)"
    ! found mosquitto plant/a/sensor-1/telemetry || failed "nothing is said of what the policy intends"
    proved "what the policy intends at Mosquitto is not reported"
}

prove_mosquitto_confined() {
    local watcher
    watcher=$(watcher_of mosquitto)
    prove_confined mosquitto
    ! inside "$watcher" sh -c ': > /run/topicwarden/x' 2>/dev/null || failed "topicwarden cannot write to the ring's folder"
    ! inside "$watcher" sh -c ': >> /run/topicwarden/mosquitto.ring' 2>/dev/null || failed "nor to the ring"
    inside "$watcher" sh -c '! tail -n +3 /proc/net/dev | grep -v "^ *lo:"' || failed "topicwarden has no network"
    inside "$watcher" grep -q ' /run/topicwarden tmpfs ro,' /proc/mounts || failed "the ring is memory, mounted read-only"
    proved "topicwarden can read the ring and nothing else: no root, no capability, no network, no writable file system"
}

# What was published before topicwarden had its queue at the node, nobody sees: so it is published again.
deviate() {
    amqp_publish press-1 orders line1.press-2.order 40 ||
        failed "the node takes what its permissions allow and the policy does not"
    found rabbitmq '"TW201"' press-1 orders line1.press-2.order
}

prove_rabbitmq_findings() {
    local attempt
    wait_for 120 "RabbitMQ" amqp_publish press-1 readings line1.press-1.telemetry 20.0
    wait_for 60 "topicwarden" watching rabbitmq
    wait_for 60 "the finding" deviate || failed "the deviation was found"
    proved "a publish RabbitMQ granted and the policy does not intend is reported (TW201)"
    amqp_publish press-1 readings line1.press-1.telemetry 21.5 || failed "the node takes what policy and permissions allow"
    amqp amqp-get historian plant --queue=history || failed "the historian gets what the press published"
    for attempt in $(seq 15); do
        amqp_publish press-2 orders "line1.press-1.order-$attempt" 40 || true
    done
    # Not -q: with pipefail, an engine that is cut short would be the failure.
    logs rabbitmq | grep "access to exchange 'orders' in vhost 'plant' refused for user 'press-2'" >/dev/null ||
        failed "the node refuses what its permissions do not allow"
    wait_for 30 "the refusals" found rabbitmq '"TW301"' press-2 || failed "the refused publishes were reported"
    proved "publishes RabbitMQ refuses again and again are reported (TW301)"
    ! found rabbitmq line1.press-1.telemetry || failed "nothing is said of what the policy intends"
    ! found rabbitmq '"finding"' historian || failed "nothing is said of who does what the policy intends"
    proved "what the policy intends at RabbitMQ is not reported"
}

prove_rabbitmq_confined() {
    prove_confined rabbitmq
    ! amqp amqp-publish auditor plant --exchange=readings --routing-key=x --body=x ||
        failed "topicwarden's account cannot enter the plant's virtual host"
    ! amqp amqp-declare-queue auditor / --queue=x || failed "it can declare nothing but a queue the node names"
    proved "topicwarden's account may read what the plugin publishes and nothing else"
    if [ -z "$on_host" ]; then
        # A default route's destination is 00000000.
        inside "$(watcher_of rabbitmq)" sh -c '! grep -q "	00000000	" /proc/net/route' ||
            failed "topicwarden's network leads nowhere else"
        proved "topicwarden reaches the node and nothing else: no root, no capability, no way out, no writable file system"
    else
        proved "topicwarden has no root, no capability, no writable file system (its network is the host's on this machine)"
    fi
}

prove_mosquitto() {
    prove_mosquitto_findings
    prove_mosquitto_confined
}

prove_rabbitmq() {
    prove_rabbitmq_findings
    prove_rabbitmq_confined
}

prove_all() {
    prove_mosquitto_findings
    prove_rabbitmq_findings
    rabbitmq_mqtt_publish sensor-1 plant/a/sensor-1/telemetry 21.5 || failed "RabbitMQ takes a sensor's telemetry by MQTT"
    rabbitmq_mqtt_publish sensor-1 plant/c/pump-9/command open || failed "and, by its permissions, another's command"
    wait_for 30 "the finding" found rabbitmq '"TW201"' sensor-1 plant/c/pump-9/command ||
        failed "the rule that judges MQTT at Mosquitto judges it at RabbitMQ"
    ! found rabbitmq plant/a/sensor-1/telemetry || failed "nothing is said of a sensor's telemetry at RabbitMQ"
    proved "one rule for MQTT topics judges the sensors of both brokers (TW201)"
    prove_mosquitto_confined
    prove_rabbitmq_confined
}
