package judge;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;

/**
 * Is every transaction whole? The fault-injected build puts the token of its transaction on every record that it writes: of the
 * records with one token, in all topics together, all are committed or none is.
 */
final class Tokens {
    static final String HEADER = "millstream-token";

    /** The records with one token. */
    private static final class Found {
        long written;
        long committed;
        String first;
    }

    private final Map<String, Found> tokens = new HashMap<>();
    private final Findings findings = new Findings();
    private long records;
    private long committed;

    static String run(Arguments arguments) throws Exception {
        String bootstrap = arguments.text(0, "BOOTSTRAP");
        arguments.text(1, "TOPIC");
        Duration patience = arguments.patience();
        Tokens judge = new Tokens();
        for (String topic : arguments.from(1)) {
            // Both looks go equally far, and what is committed waits for the end of everything before it.
            Map<TopicPartition, Long> ends = Topics.ends(bootstrap, topic);
            Topics.read(bootstrap, topic, IsolationLevel.READ_COMMITTED, ends, patience, judge::committed);
            Topics.read(bootstrap, topic, IsolationLevel.READ_UNCOMMITTED, ends, patience, judge::written);
        }
        Judge.requireInput(judge.committed > 0);
        return judge.findings.verdict(judge.compare());
    }

    private void written(ConsumerRecord<byte[], byte[]> record) {
        records++;
        Found found = found(record);
        if (found == null) {
            findings.add("untold", () -> Topics.place(record) + " has no token");
            return;
        }
        found.written++;
        if (found.first == null) {
            found.first = Topics.place(record);
        }
    }

    private void committed(ConsumerRecord<byte[], byte[]> record) {
        committed++;
        Found found = found(record);
        if (found != null) {
            found.committed++;
        }
    }

    /** Null where a record has no token. */
    private Found found(ConsumerRecord<byte[], byte[]> record) {
        Header header = record.headers().lastHeader(HEADER);
        if (header == null || header.value() == null) {
            return null;
        }
        return tokens.computeIfAbsent(new String(header.value(), StandardCharsets.UTF_8), token -> new Found());
    }

    private String compare() {
        long whole = 0;
        long aborted = 0;
        for (Map.Entry<String, Found> entry : tokens.entrySet()) {
            Found found = entry.getValue();
            if (found.committed == 0) {
                aborted++;
            } else if (found.committed == found.written) {
                whole++;
            } else {
                findings.add("torn", () -> "'" + entry.getKey() + "': " + found.committed + " records of " + found.written
                        + " are committed; the first is " + found.first);
            }
        }
        return "records=" + records + " committed=" + committed + " tokens=" + tokens.size() + " whole=" + whole + " aborted="
                + aborted;
    }

    /** Writes transactions to two topics, each with its token: a whole one, one that is aborted, and what is planted. */
    static String transactions(Arguments arguments) throws Exception {
        List<String> topics = List.of(arguments.text(1, "TOPIC"), arguments.text(2, "TOPIC"));
        String planted = arguments.option("plant") == null ? "nothing" : arguments.option("plant");
        Map<String, String> settings = Map.of("transactional.id", "judge-" + UUID.randomUUID());
        try (KafkaProducer<byte[], byte[]> producer = Topics.producer(arguments.text(0, "BOOTSTRAP"), settings)) {
            producer.initTransactions();
            write(producer, topics, "whole", true);
            write(producer, topics, "aborted", false);
            switch (planted) {
                case "nothing" -> { }
                case "torn" -> {
                    // As an end of the transaction before would tear it: what comes after it is another one.
                    write(producer, topics.subList(0, 1), "torn", true);
                    write(producer, topics.subList(1, 2), "torn", false);
                }
                case "untold" -> write(producer, topics, null, true);
                default -> throw new IllegalArgumentException("there is no error '" + planted + "' to plant");
            }
        }
        return "planted=" + planted;
    }

    private static void write(
            KafkaProducer<byte[], byte[]> producer, List<String> topics, String token, boolean commits) {
        producer.beginTransaction();
        for (String topic : topics) {
            ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, new byte[0], new byte[0]);
            if (token != null) {
                record.headers().add(HEADER, token.getBytes(StandardCharsets.UTF_8));
            }
            producer.send(record);
        }
        producer.flush();
        if (commits) {
            producer.commitTransaction();
        } else {
            producer.abortTransaction();
        }
    }
}
