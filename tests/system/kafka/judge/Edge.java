package judge;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Writes records at the edges of what Kafka can carry. No two are equal, so that each can be told apart after a pass through
 * a pipeline. A transaction in the middle is aborted: none of its records may come out anywhere.
 */
final class Edge {
    private static final long NOW_MS = 1_767_225_600_000L;
    private static final long YEAR_9999_MS = 253_402_300_799_999L;
    private static final int LARGE_BYTES = 900 << 10;
    /** Plain records under few keys, among the others: a swap of neighbours shows. */
    private static final int PLAIN = 100;

    private final String topic;
    private final List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();

    private Edge(String topic) {
        this.topic = topic;
    }

    static String run(Arguments arguments) throws Exception {
        Edge edge = new Edge(arguments.text(1, "TOPIC"));
        String id = "judge-" + UUID.randomUUID();
        int written = 0;
        int aborted = 0;
        try (KafkaProducer<byte[], byte[]> producer = Topics.producer(arguments.text(0, "BOOTSTRAP"), Map.of("transactional.id", id))) {
            producer.initTransactions();
            edge.plain("before");
            edge.keysAndValues();
            written += edge.send(producer);
            producer.commitTransaction();
            edge.plain("aborted");
            aborted += edge.send(producer);
            producer.abortTransaction();
            edge.headers();
            edge.timestamps();
            edge.sizes();
            edge.plain("after");
            written += edge.send(producer);
            producer.commitTransaction();
        }
        return "records=" + written + " aborted=" + aborted;
    }

    /** Begins a transaction and leaves it open, everything in it acknowledged. */
    private int send(KafkaProducer<byte[], byte[]> producer) {
        producer.beginTransaction();
        records.forEach(producer::send);
        producer.flush();
        int sent = records.size();
        records.clear();
        return sent;
    }

    private void plain(String word) {
        for (int i = 0; i < PLAIN; i++) {
            add(NOW_MS + i, bytes("key-" + i % 7), bytes(word + " " + i));
        }
    }

    private void keysAndValues() {
        byte[] all = new byte[256];
        for (int i = 0; i < all.length; i++) {
            all[i] = (byte) i;
        }
        byte[][] keys = {null, {}, bytes("k"), all, {0}, {(byte) 0xff, (byte) 0xfe}};
        byte[][] values = {null, {}, bytes("v"), all, {0}, {(byte) 0xc3, 0x28}};
        for (byte[] key : keys) {
            for (byte[] value : values) {
                add(NOW_MS, key, value);
            }
        }
    }

    private void headers() {
        header(add(NOW_MS, bytes("headers"), bytes("null value")), "h", null);
        header(add(NOW_MS, bytes("headers"), bytes("empty value")), "h", new byte[0]);
        header(add(NOW_MS, bytes("headers"), bytes("empty name")), "", bytes("x"));
        header(add(NOW_MS, bytes("headers"), bytes("non-ASCII name")), "größe", bytes("ß"));
        header(add(NOW_MS, bytes("headers"), bytes("binary value")), "h", new byte[] {0, (byte) 0xff, (byte) 0x80});
        ProducerRecord<byte[], byte[]> repeated = add(NOW_MS, bytes("headers"), bytes("repeated names, in this order"));
        for (String value : List.of("1", "2", "1", "3")) {
            header(repeated, "h", bytes(value));
            header(repeated, "other", bytes(value));
        }
        ProducerRecord<byte[], byte[]> many = add(NOW_MS, null, bytes("a hundred"));
        for (int i = 0; i < 100; i++) {
            header(many, "h" + i, bytes("value " + i));
        }
        header(add(NOW_MS, null, null), "only", bytes("a header"));
    }

    /** Not 0: librdkafka takes that for "now", and has no other way to say 1970-01-01 00:00:00.000. */
    private void timestamps() {
        for (long timestamp : new long[] {1, NOW_MS, YEAR_9999_MS, 2}) {
            add(timestamp, bytes("timestamp"), bytes("at " + timestamp));
        }
    }

    private void sizes() {
        byte[] value = new byte[LARGE_BYTES];
        for (int i = 0; i < value.length; i++) {
            value[i] = (byte) (i * 31 >>> 3);
        }
        add(NOW_MS, bytes("large value"), value);
        byte[] key = Arrays.copyOf(value, 40_000);
        add(NOW_MS, key, bytes("large key"));
    }

    private ProducerRecord<byte[], byte[]> add(long timestamp, byte[] key, byte[] value) {
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, null, timestamp, key, value);
        records.add(record);
        return record;
    }

    private static void header(ProducerRecord<byte[], byte[]> record, String name, byte[] value) {
        record.headers().add(name, value);
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
