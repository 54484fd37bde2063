package judge;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.header.Header;

/**
 * Is the output the input, each record once, in order, with nothing about it changed? Records are matched by a digest of key,
 * value, timestamp and headers; among equal ones the first that keeps the order is taken.
 */
final class Passthrough {
    private record Digest(long high, long low) {}

    private record Source(int partition, long offset) {}

    private final Map<Digest, List<Source>> unmet = new HashMap<>();
    private final Findings findings = new Findings();
    private final Order order = new Order();
    private long inputs;
    private long outputs;

    static String run(Arguments arguments) throws Exception {
        String bootstrap = arguments.text(0, "BOOTSTRAP");
        String out = arguments.text(2, "OUT");
        Duration patience = arguments.patience();
        Passthrough judge = new Passthrough();
        Topics.read(bootstrap, arguments.text(1, "IN"), patience, judge::input);
        Judge.requireInput(judge.inputs > 0);
        int partitions = Topics.partitions(bootstrap, out);
        Topics.read(bootstrap, out, patience, record -> judge.output(record, partitions));
        judge.unmet.values().forEach(sources -> sources.forEach(source ->
                judge.findings.add("lost", () -> "record " + source.partition + "@" + source.offset)));
        return judge.findings.verdict("inputs=" + judge.inputs + " outputs=" + judge.outputs);
    }

    private void input(ConsumerRecord<byte[], byte[]> record) {
        inputs++;
        unmet.computeIfAbsent(digest(record), d -> new ArrayList<>(1)).add(new Source(record.partition(), record.offset()));
    }

    private void output(ConsumerRecord<byte[], byte[]> record, int partitions) {
        outputs++;
        if (record.key() != null && Topics.partitionOf(record.key(), partitions) != record.partition()) {
            findings.add("partition", () -> describe(record));
        }
        List<Source> candidates = unmet.get(digest(record));
        if (candidates == null || candidates.isEmpty()) {
            findings.add("unexpected", () -> describe(record));
            return;
        }
        Source source = candidates.stream()
                .filter(candidate -> candidate.offset > order.last(candidate.partition, record.partition()))
                .findFirst().orElse(candidates.get(0));
        candidates.remove(source);
        if (!order.follows(source.partition, record.partition(), source.offset)) {
            findings.add("reordered", () -> describe(record) + " of " + source);
        }
    }

    /** "Unexpected" is also what a duplicate or a changed record is: the rest of the line tells which. */
    private static String describe(ConsumerRecord<byte[], byte[]> record) {
        return Topics.place(record) + " key " + Topics.show(record.key()) + " value " + Topics.show(record.value())
                + " timestamp " + record.timestamp() + " " + record.headers();
    }

    private static Digest digest(ConsumerRecord<byte[], byte[]> record) {
        MessageDigest sha = newDigest();
        add(sha, record.key());
        add(sha, record.value());
        sha.update(ByteBuffer.allocate(8).putLong(0, record.timestamp()));
        for (Header header : record.headers()) {
            add(sha, header.key().getBytes(StandardCharsets.UTF_8));
            add(sha, header.value());
        }
        ByteBuffer bytes = ByteBuffer.wrap(sha.digest());
        return new Digest(bytes.getLong(), bytes.getLong());
    }

    /** The length goes first, so that null, empty and shifted borders all differ. */
    private static void add(MessageDigest sha, byte[] bytes) {
        sha.update(ByteBuffer.allocate(4).putInt(0, bytes == null ? -1 : bytes.length));
        if (bytes != null) {
            sha.update(bytes);
        }
    }

    private static MessageDigest newDigest() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (java.security.NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
