"""A policy that uses every key."""

GOOD = """\
topicwarden: 1
roles:
  sensor:
    members: [{user: "sensor-*", vhost: prod, broker: "plant-?"}, {address: 10.0.0.0/8, anonymous: true}]
    publish:
      - {topic: "plant/+/%u/telemetry", rate: 10/s, burst: 20, max_size: 4KiB}
      - {topic: "plant/+/%u/status", byte_rate: 10KiB/min, byte_burst: 8KiB}
    subscribe:
      - {topic: "plant/+/%u/command"}
    rate: 100/h
    burst: 5
    byte_rate: 1MB/h
    byte_burst: 1MB
  billing:
    members: [{client: billing, tls_subject: "CN=billing,*"}]
    publish:
      - {exchange: invoices, key: "invoice.*.created", rate: 200/s}
    consume: [{queue: "billing.#"}]
naming:
  - within: {topic: "plant/#"}
    levels: ["plant", "[a-z][a-z0-9-]{1,31}", "[a-z0-9-]+", "telemetry|command|status"]
    more: true
payload:
  max_entropy: 7.2
  min_size_for_entropy: 64
  text_only: ["plant/+/+/status"]
  no_encoded: ["plant/#"]
thresholds: {denials: 10/min, login_failures: 5/min, new_topics: 100/min, max_name_length: 255, max_levels: 16}
inventory:
  brokers: [{address: mqtt.plant.example, ports: [8883]}]
  tools: [{process: mosquitto_pub, hosts: [ci-*], users: [ci]}]
exceptions:
  - {finding: TW101, client: legacy-gw, user: "*", topic: "plant/#", reason: "replaced by Q2", until: 2027-06-30}
  - finding: grant.excess
    user: bridge
    broker: "plant-?"
    grant: "topic readwrite #"
    holder: "user 'bridge'"
    file: "/etc/mosquitto/*"
    reason: one way only from May on
    until: 2027-05-01
  - {finding: grant.excess, user: "*", vhost: prod, change: permission, reason: rollout, until: 2027-01-31}
"""
