package judge;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.header.internals.RecordHeaders;

/**
 * Is each malformed record of the input set aside as a dead letter, once, in order, as it was, with where it comes from? And nothing else?
 */
final class Letters {
    /** Of the headers that are added; one that a record had before would be left out here. */
    private static final String OWN = "millstream-";

    private record Place(int partition, long offset) {}

    private final String input;
    private final boolean areOrders;
    private final String step;
    private final Map<Place, ConsumerRecord<byte[], byte[]>> unmet = new HashMap<>();
    private final Findings findings = new Findings();
    private final Order order = new Order();
    private long inputs;
    private long malformed;
    private long letters;

    private Letters(Arguments arguments) throws Exception {
        input = arguments.text(1, "INPUT");
        areOrders = switch (arguments.text(3, "events or orders")) {
            case "events" -> false;
            case "orders" -> true;
            default -> throw new IllegalArgumentException("records are events or orders");
        };
        step = arguments.text(4, "STEP");
        Topics.read(arguments.text(0, "BOOTSTRAP"), input, arguments.patience(), record -> {
            inputs++;
            if (isMalformed(record)) {
                malformed++;
                unmet.put(new Place(record.partition(), record.offset()), record);
            }
        });
        Judge.requireInput(malformed > 0);
    }

    /** How old somebody is makes no event malformed. */
    private boolean isMalformed(ConsumerRecord<byte[], byte[]> record) {
        return areOrders ? Orders.read(record) == null : Rules.judge(record.value(), 0).kind() == Rules.Kind.FAILED;
    }

    static String run(Arguments arguments) throws Exception {
        Letters judge = new Letters(arguments);
        String bootstrap = arguments.text(0, "BOOTSTRAP");
        String topic = arguments.text(2, "LETTERS");
        int partitions = Topics.partitions(bootstrap, topic);
        Topics.read(bootstrap, topic, arguments.patience(), record -> judge.letter(record, partitions));
        judge.unmet.values().forEach(record -> judge.findings.add("lost", () -> Topics.place(record)));
        return judge.findings.verdict(
                "inputs=" + judge.inputs + " malformed=" + judge.malformed + " letters=" + judge.letters);
    }

    private void letter(ConsumerRecord<byte[], byte[]> letter, int partitions) {
        letters++;
        Place place = place(letter);
        ConsumerRecord<byte[], byte[]> record = place == null ? null : unmet.remove(place);
        if (record == null) {
            findings.add("unexpected", () -> Topics.place(letter) + " of " + place + " " + Topics.show(letter.value()));
            return;
        }
        if (!order.follows(place.partition, letter.partition(), place.offset)) {
            findings.add("reordered", () -> Topics.place(letter) + " of " + Topics.place(record));
        }
        if (!Arrays.equals(letter.key(), record.key()) || !Arrays.equals(letter.value(), record.value())
                || letter.timestamp() != record.timestamp()
                || !Topics.sameHeaders(withoutOwn(letter), record.headers().toArray())) {
            findings.add("corrupt", () -> Topics.place(letter) + " " + Topics.show(letter.value()) + " of " + Topics.place(record));
        }
        if (letter.key() != null && Topics.partitionOf(letter.key(), partitions) != letter.partition()) {
            findings.add("partition", () -> Topics.place(letter));
        }
        if (!step.equals(told(letter, "step")) || !"refused".equals(told(letter, "kind")) || told(letter, "reason").isEmpty()) {
            findings.add("untold", () -> Topics.place(letter) + " says " + letter.headers());
        }
    }

    /** Where it says that it comes from; null where it doesn't say so, or comes from somewhere else. */
    private Place place(ConsumerRecord<byte[], byte[]> letter) {
        if (!input.equals(told(letter, "topic"))) {
            return null;
        }
        try {
            return new Place(Integer.parseInt(told(letter, "partition")), Long.parseLong(told(letter, "offset")));
        } catch (NumberFormatException untold) {
            return null;
        }
    }

    private static String told(ConsumerRecord<byte[], byte[]> letter, String name) {
        Header header = letter.headers().lastHeader(OWN + name);
        return header == null || header.value() == null ? "" : new String(header.value(), StandardCharsets.UTF_8);
    }

    private static Header[] withoutOwn(ConsumerRecord<byte[], byte[]> letter) {
        Header[] all = letter.headers().toArray();
        return Arrays.stream(all).filter(header -> !header.key().startsWith(OWN)).toArray(Header[]::new);
    }

    /** Writes what should become of the malformed records, right or with an error planted. */
    static String write(Arguments arguments) throws Exception {
        Letters judge = new Letters(arguments);
        String letters = arguments.text(2, "LETTERS");
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>(judge.unmet.values());
        records.sort((one, other) -> Long.compare(one.offset(), other.offset()));
        List<ProducerRecord<byte[], byte[]>> written = new ArrayList<>();
        records.forEach(record -> written.add(judge.of(record, letters, record.offset())));
        int at = written.size() - 1;
        ConsumerRecord<byte[], byte[]> last = records.get(at);
        String planted = arguments.option("plant") == null ? "nothing" : arguments.option("plant");
        switch (planted) {
            case "place" -> written.set(at, judge.of(last, letters, last.offset() + 1_000_000));
            case "value" -> written.set(at, changed(written.get(at)));
            case "untold" -> written.get(at).headers().remove(OWN + "reason");
            // What goes wrong with any records.
            default -> {
                return Reference.write(arguments, letters, written);
            }
        }
        return Reference.write(arguments, written, planted);
    }

    private ProducerRecord<byte[], byte[]> of(ConsumerRecord<byte[], byte[]> record, String topic, long offset) {
        RecordHeaders headers = new RecordHeaders(record.headers().toArray());
        Map<String, String> own = Map.of("topic", record.topic(), "partition", Integer.toString(record.partition()),
                "offset", Long.toString(offset), "step", step, "kind", "refused", "reason", "it is malformed");
        own.forEach((name, value) -> headers.add(new RecordHeader(OWN + name, value.getBytes(StandardCharsets.UTF_8))));
        return new ProducerRecord<>(topic, null, record.timestamp(), record.key(), record.value(), headers);
    }

    private static ProducerRecord<byte[], byte[]> changed(ProducerRecord<byte[], byte[]> record) {
        byte[] value = record.value() == null ? new byte[0] : null;
        return new ProducerRecord<>(record.topic(), null, record.timestamp(), record.key(), value, record.headers());
    }
}
