package judge;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.header.Header;

/**
 * Is the output exactly the adults of the events, each once, in order? An output is known by its event's ts, which is unique but for what
 * a producer wrote twice.
 */
final class Adults {
    private static final Header[] NO_HEADERS = {};

    /** An event that should come out. Its output is worked out again when it is met: a million trees don't fit. */
    private static final class Source {
        final int partition;
        final long offset;
        final long timestamp;
        final byte[] value;
        final Header[] headers;
        boolean met;
        /** The same event, written again by a producer that could not know that its broker had it: it comes out twice. */
        Source again;

        Source(ConsumerRecord<byte[], byte[]> record) {
            partition = record.partition();
            offset = record.offset();
            timestamp = record.timestamp();
            value = record.value();
            Header[] given = record.headers().toArray();
            headers = given.length == 0 ? NO_HEADERS : given;
        }

        @Override
        public String toString() {
            return "event " + partition + "@" + offset + " " + Topics.show(value);
        }
    }

    private final String bootstrap;
    private final long minAge;
    private final Duration patience;
    private final Countries countries;
    private final Map<Long, Source> sources = new HashMap<>();
    private final Findings findings = new Findings();
    private final Order order = new Order();
    private final long[] rulings = new long[Rules.Kind.values().length];
    private long outputs;

    private Adults(Arguments arguments) throws Exception {
        bootstrap = arguments.text(0, "BOOTSTRAP");
        minAge = arguments.number(3, "MIN_AGE");
        patience = arguments.patience();
        countries = new Countries(arguments);
    }

    static String run(Arguments arguments) throws Exception {
        Adults adults = new Adults(arguments);
        Topics.read(adults.bootstrap, arguments.text(1, "EVENTS"), adults.patience, adults::event);
        Judge.requireInput(!adults.sources.isEmpty());
        adults.judge(arguments.text(2, "OUT"));
        return adults.findings.verdict(adults.counts());
    }

    private String counts() {
        long events = Arrays.stream(rulings).sum();
        return "events=" + events + " failed=" + rulings[Rules.Kind.FAILED.ordinal()]
                + " dropped=" + rulings[Rules.Kind.DROPPED.ordinal()] + " kept=" + rulings[Rules.Kind.KEPT.ordinal()]
                + " outputs=" + outputs;
    }

    private void event(ConsumerRecord<byte[], byte[]> record) {
        Rules.Ruling ruling = Rules.judge(record.value(), minAge);
        rulings[ruling.kind().ordinal()]++;
        if (ruling.kind() != Rules.Kind.KEPT) {
            return;
        }
        Source source = new Source(record);
        Source before = sources.putIfAbsent(ruling.ts(), source);
        if (before == null) {
            return;
        }
        while (before.again != null) {
            before = before.again;
        }
        if (before.partition != source.partition || !Arrays.equals(before.value, source.value)) {
            throw new IllegalStateException("two events have ts " + ruling.ts() + ": outputs can't be told apart");
        }
        before.again = source;
    }

    private void judge(String topic) throws Exception {
        int partitions = Topics.partitions(bootstrap, topic);
        Topics.read(bootstrap, topic, patience, record -> output(record, partitions));
        for (Source source : sources.values()) {
            for (Source one = source; one != null; one = one.again) {
                if (!one.met) {
                    findings.add("lost", one::toString);
                }
            }
        }
    }

    /** The first event of that ts that was not met yet, the last one where all were; null where there is none. */
    private Source next(JsonNode ts) {
        Source source = ts == null || !ts.isIntegralNumber() ? null : sources.get(ts.longValue());
        while (source != null && source.met && source.again != null) {
            source = source.again;
        }
        return source;
    }

    private void output(ConsumerRecord<byte[], byte[]> record, int partitions) {
        outputs++;
        JsonNode output = Rules.parse(record.value());
        JsonNode ts = output == null ? null : output.get("ts");
        Source source = next(ts);
        if (source == null) {
            findings.add("unexpected", () -> Topics.place(record) + " " + Topics.show(record.value()));
            return;
        }
        if (source.met) {
            findings.add("duplicate", () -> Topics.place(record) + " of " + source);
            return;
        }
        source.met = true;
        if (!order.follows(source.partition, record.partition(), source.offset)) {
            findings.add("reordered", () -> Topics.place(record) + " of " + source);
        }
        compare(record, output, source, partitions);
    }

    private void compare(ConsumerRecord<byte[], byte[]> record, JsonNode output, Source source, int partitions) {
        Rules.Ruling expected = Rules.judge(source.value, minAge);
        byte[] key = expected.id().getBytes(StandardCharsets.UTF_8);
        if (!countries.joined(expected.output()).equals(output)) {
            findings.add("corrupt", () -> Topics.place(record) + " " + Topics.show(record.value()) + " of " + source);
        }
        if (!Arrays.equals(key, record.key())) {
            findings.add("key", () -> Topics.place(record) + " " + Topics.show(record.key()) + " of " + source);
        }
        if (Topics.partitionOf(key, partitions) != record.partition()) {
            findings.add("partition", () -> Topics.place(record) + " of " + source);
        }
        if (record.timestamp() != source.timestamp) {
            findings.add("timestamp", () ->
                    Topics.place(record) + " " + record.timestamp() + " and not " + source.timestamp + " of " + source);
        }
        if (!Topics.sameHeaders(record.headers().toArray(), source.headers)) {
            findings.add("headers", () -> Topics.place(record) + " " + record.headers() + " of " + source);
        }
    }
}
