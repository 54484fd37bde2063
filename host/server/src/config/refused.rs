//! The librdkafka properties that a pipeline file must not set, each with its reason, and which names mean the same property.
//!
//! Checked against librdkafka 2.12.1 (`rdkafka_conf.c`, hidden properties included). A property that librdkafka does not
//! know is not listed: librdkafka itself says so.

/// Why the property may not be set, if so. `name` without `consumer.` or `producer.`.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    let name = canonical(name);
    if name.starts_with("test.mock.") {
        return Some("librdkafka's simulated brokers have no transactions");
    }
    REFUSED
        .iter()
        .find(|(_, names)| names.contains(&name))
        .map(|(reason, _)| *reason)
}

/// Why the property may not be set for one of the clients alone, if so.
pub(super) fn reason_for_one_client(name: &str) -> Option<&'static str> {
    (canonical(name) == BROKERS).then_some(
        "what the consumer read is committed in the producer's transaction: both use one cluster",
    )
}

/// What `bootstrap.servers` is another name of.
pub(super) const BROKERS: &str = "metadata.broker.list";

/// The one name of a property under all names that librdkafka takes for it.
pub(super) fn canonical(name: &str) -> &str {
    // "topic." before a topic property is ignored by librdkafka. Three properties really begin with it.
    let name = match name.strip_prefix("topic.") {
        Some(rest) if !rest.starts_with("metadata.") && rest != "blacklist" => rest,
        _ => name,
    };
    ALIASES
        .iter()
        .find(|(alias, _)| *alias == name)
        .map_or(name, |(_, canonical)| canonical)
}

const ALIASES: &[(&str, &str)] = &[
    ("acks", "request.required.acks"),
    ("bootstrap.servers", BROKERS),
    ("compression.type", "compression.codec"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("enable.auto.commit", "auto.commit.enable"),
    ("linger.ms", "queue.buffering.max.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("retries", "message.send.max.retries"),
    ("sasl.mechanism", "sasl.mechanisms"),
    (
        "sasl.oauthbearer.client.credentials.client.id",
        "sasl.oauthbearer.client.id",
    ),
    (
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.client.secret",
    ),
];

/// Reasons, each with the canonical names that it holds for.
pub(super) const REFUSED: &[(&str, &[&str])] = &[
    // Consumer: what is read, and when it counts as read.
    (
        "offsets are committed with the outputs, by the checkpoint",
        &[
            "auto.commit.enable",
            "auto.commit.interval.ms",
            "enable.auto.offset.store",
            "offset.store.method",
            "offset.store.path",
            "offset.store.sync.interval.ms",
        ],
    ),
    (
        "`start` of a source says where to begin; later an offset is never skipped",
        &["auto.offset.reset"],
    ),
    (
        "records of aborted transactions must never be read",
        &["isolation.level"],
    ),
    ("damaged records must never be read", &["check.crcs"]),
    (
        "Millstream follows the ends of partitions itself",
        &["enable.partition.eof"],
    ),
    (
        "Millstream sets it: the usual value holds a consumer to a third of its speed",
        &["fetch.queue.backoff.ms"],
    ),
    (
        "Millstream polls: it has no callback for records",
        &["consume.callback.max.messages"],
    ),
    (
        "it would hide topics that the pipeline reads or writes",
        &["topic.blacklist"],
    ),
    // Consumer: the group.
    ("the pipeline's name is the consumer group", &["group.id"]),
    (
        "it is made from pipeline, instance and worker",
        &["group.instance.id", "transactional.id", "client.id"],
    ),
    (
        "the group works by the classic protocol only",
        &[
            "group.protocol",
            "group.protocol.type",
            "group.remote.assignor",
        ],
    ),
    (
        "partitions of one number must come to one worker",
        &["partition.assignment.strategy"],
    ),
    // Producer: transactions.
    (
        "it follows from the checkpoint interval",
        &["transaction.timeout.ms", "message.timeout.ms"],
    ),
    (
        "a retried write must not appear twice",
        &["enable.idempotence"],
    ),
    (
        "an epoch that lost a record is aborted, which is stricter",
        &["enable.gapless.guarantee"],
    ),
    (
        "a checkpoint must be on all in-sync replicas",
        &["request.required.acks"],
    ),
    (
        "more than five would reorder or repeat records",
        &["max.in.flight.requests.per.connection"],
    ),
    (
        "without retries every short outage would abort an epoch",
        &["message.send.max.retries"],
    ),
    (
        "records keep their order",
        &["queuing.strategy", "msg_order_cmp"],
    ),
    (
        "records go where Java's clients put them, and changes where their map partition is",
        &["partitioner", "partitioner_cb"],
    ),
    (
        "Millstream sets it with the way it learns of failed writes",
        &["delivery.report.only.error", "produce.offset.report"],
    ),
    // Both: brokers, topics, identity.
    (
        "a missing topic is an error, and Millstream creates its own topics as they must be",
        &["allow.auto.create.topics"],
    ),
    (
        "transactions need the versions that the broker itself tells",
        &[
            "api.version.request",
            "api.version.fallback.ms",
            "broker.version.fallback",
        ],
    ),
    (
        "it tells brokers which library speaks",
        &["client.software.name", "client.software.version"],
    ),
    // Both: what only a program can set.
    (
        "Millstream sets it for its own metrics",
        &["statistics.interval.ms"],
    ),
    (
        "Millstream serves the client's events itself",
        &["enabled_events", "enable_sasl_queue", "log.queue"],
    ),
    (
        "Millstream handles signals itself",
        &["internal.termination.signal"],
    ),
    (
        "it would load native code into Millstream",
        &["plugin.library.paths"],
    ),
    (
        "it is a function or an address in the program, which no file can name",
        &[
            "background_event_cb",
            "closesocket_cb",
            "connect_cb",
            "consume_cb",
            "default_topic_conf",
            "dr_cb",
            "dr_msg_cb",
            "error_cb",
            "interceptors",
            "log_cb",
            "oauthbearer_token_refresh_cb",
            "offset_commit_cb",
            "opaque",
            "open_cb",
            "rebalance_cb",
            "resolve_cb",
            "socket_cb",
            "ssl.certificate.verify_cb",
            "ssl_ca",
            "ssl_certificate",
            "ssl_engine_callback_data",
            "ssl_key",
            "stats_cb",
            "throttle_cb",
            "ut_handle_ProduceResponse",
        ],
    ),
];
