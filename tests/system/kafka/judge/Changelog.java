package judge;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/**
 * Does the changelog fold to the last adult event of each id, every key in the partition it hashes to? And on the way there, were the
 * changes of each id its events in their order, of which some may be left out, and none may come again?
 */
final class Changelog {
    /** The last event of an id that should be in the map, and the only input partition of that id. */
    private record Last(int partition, byte[] event) {}

    /** What there is to change an id, in order: each event by its ts. */
    private static final class Events {
        long[] ts = new long[4];
        int size;
        /** Those before have been changed to, or left out. */
        int next;

        void add(long event) {
            if (size == ts.length) {
                ts = Arrays.copyOf(ts, 2 * size);
            }
            ts[size++] = event;
        }

        /** Whether one comes yet. */
        boolean goOnTo(long event) {
            for (int at = next; at < size; at++) {
                if (ts[at] == event) {
                    next = at + 1;
                    return true;
                }
            }
            return false;
        }
    }

    private final long minAge;
    private final int partitions;
    private final Countries countries;
    private final Map<String, Last> reference = new HashMap<>();
    private final Map<String, Events> all = new HashMap<>();
    /** In key order, so that a sample of the entries is the same every time. */
    private final TreeMap<ByteBuffer, byte[]> fold = new TreeMap<>();
    private final Findings findings = new Findings();
    private long events;
    private long changes;

    private Changelog(long minAge, int partitions, Countries countries) {
        this.minAge = minAge;
        this.partitions = partitions;
        this.countries = countries;
    }

    static String run(Arguments arguments) throws Exception {
        String bootstrap = arguments.text(0, "BOOTSTRAP");
        String topic = arguments.text(2, "CHANGELOG");
        Duration patience = arguments.patience();
        Changelog judge = new Changelog(
                arguments.number(3, "MIN_AGE"), (int) arguments.number(4, "PARTITIONS"), new Countries(arguments));
        int found = Topics.partitions(bootstrap, topic);
        if (found != judge.partitions) {
            judge.findings.add("partitions", () -> topic + " has " + found + " partitions, not " + judge.partitions);
        }
        Topics.read(bootstrap, arguments.text(1, "EVENTS"), patience, judge::event);
        Judge.requireInput(!judge.reference.isEmpty());
        Topics.read(bootstrap, topic, patience, judge::change);
        judge.compare();
        String counts = "events=" + judge.events + " changes=" + judge.changes + " entries=" + judge.fold.size();
        if (arguments.option("http") != null) {
            Queries queries = new Queries(arguments, judge.partitions, judge.findings);
            counts += " queried=" + queries.ask(judge.fold);
        }
        return judge.findings.verdict(counts);
    }

    private void event(ConsumerRecord<byte[], byte[]> record) {
        events++;
        Rules.Ruling ruling = Rules.judge(record.value(), minAge);
        if (ruling.kind() != Rules.Kind.KEPT) {
            return;
        }
        all.computeIfAbsent(ruling.id(), id -> new Events()).add(ruling.ts());
        Last before = reference.put(ruling.id(), new Last(record.partition(), record.value()));
        if (before != null && before.partition != record.partition()) {
            throw new IllegalStateException("id " + ruling.id() + " is in two input partitions: which is last is undefined");
        }
    }

    private void change(ConsumerRecord<byte[], byte[]> record) {
        changes++;
        if (record.key() == null || Topics.partitionOf(record.key(), partitions) != record.partition()) {
            findings.add("partition", () -> Topics.place(record) + " key " + Topics.show(record.key()));
            return;
        }
        ByteBuffer key = ByteBuffer.wrap(record.key());
        if (record.value() == null) {
            fold.remove(key);
            return;
        }
        fold.put(key, record.value());
        Events events = all.get(new String(record.key(), StandardCharsets.UTF_8));
        JsonNode value = Rules.parse(record.value());
        if (events != null && value != null && !events.goOnTo(value.path("ts").asLong(-1))) {
            findings.add("back", () -> Topics.place(record) + " " + Topics.show(record.value()) + " comes again, or late");
        }
    }

    private void compare() {
        reference.forEach((id, last) -> {
            byte[] folded = fold.get(ByteBuffer.wrap(id.getBytes(StandardCharsets.UTF_8)));
            if (folded == null) {
                findings.add("missing", () -> id + ": " + Topics.show(last.event));
            } else if (!countries.joined(Rules.judge(last.event, minAge).output()).equals(Rules.parse(folded))) {
                findings.add("different", () -> id + ": " + Topics.show(folded) + " after " + Topics.show(last.event));
            }
        });
        fold.forEach((key, value) -> {
            if (!reference.containsKey(new String(key.array(), StandardCharsets.UTF_8))) {
                findings.add("unexpected", () -> Topics.show(key.array()) + ": " + Topics.show(value));
            }
        });
    }
}
