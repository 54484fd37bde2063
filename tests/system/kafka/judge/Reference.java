package judge;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;

/**
 * Writes what a right pipeline would, so that the judge can be shown to acquit; with an error planted, so that it can be shown
 * to convict. The error is in the last record where there is a choice: there it shows in a folded changelog as well.
 */
final class Reference {
    private static final int TRANSACTION_RECORDS = 100_000;

    static String reference(Arguments arguments) throws Exception {
        long minAge = arguments.number(3, "MIN_AGE");
        String out = arguments.text(2, "OUT");
        Countries countries = new Countries(arguments);
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        Topics.read(arguments.text(0, "BOOTSTRAP"), arguments.text(1, "EVENTS"), arguments.patience(), record -> {
            Rules.Ruling ruling = Rules.judge(record.value(), minAge);
            if (ruling.kind() == Rules.Kind.KEPT) {
                byte[] key = ruling.id().getBytes(StandardCharsets.UTF_8);
                byte[] value = countries.joined(ruling.output()).toString().getBytes(StandardCharsets.UTF_8);
                records.add(new ProducerRecord<>(out, null, record.timestamp(), key, value, record.headers()));
            }
        });
        return write(arguments, out, records);
    }

    static String copy(Arguments arguments) throws Exception {
        String out = arguments.text(2, "OUT");
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        Topics.read(arguments.text(0, "BOOTSTRAP"), arguments.text(1, "IN"), arguments.patience(), record -> records.add(
                new ProducerRecord<>(out, null, record.timestamp(), record.key(), record.value(), record.headers())));
        return write(arguments, out, records);
    }

    /** Writes these records with what is to be planted in them. */
    static String write(Arguments arguments, String out, List<ProducerRecord<byte[], byte[]>> records) {
        String planted = arguments.option("plant") == null ? "nothing" : arguments.option("plant");
        if (!planted.equals("aborted") && !planted.equals("open")) {
            plant(planted, records, Topics.partitions(arguments.text(0, "BOOTSTRAP"), out));
        }
        return write(arguments, records, planted);
    }

    /** Writes these records; where "aborted" or "open" is planted, some of them in such a transaction too. */
    static String write(Arguments arguments, List<ProducerRecord<byte[], byte[]>> records, String planted) {
        String bootstrap = arguments.text(0, "BOOTSTRAP");
        try (KafkaProducer<byte[], byte[]> producer = Topics.producer(bootstrap, Map.of("transactional.id", "judge-" + UUID.randomUUID()))) {
            producer.initTransactions();
            if (planted.equals("aborted")) {
                producer.beginTransaction();
                records.forEach(producer::send);
                producer.flush();
                producer.abortTransaction();
            }
            for (int from = 0; from < records.size(); from += TRANSACTION_RECORDS) {
                producer.beginTransaction();
                records.subList(from, Math.min(records.size(), from + TRANSACTION_RECORDS)).forEach(producer::send);
                producer.commitTransaction();
            }
            if (planted.equals("open")) {
                producer.beginTransaction();
                producer.send(records.get(records.size() - 1));
                producer.flush();
                // A closed producer would abort: the process has to go first.
                System.out.println("judge: OK an open transaction is left behind");
                System.out.flush();
                Runtime.getRuntime().halt(0);
            }
        }
        return "records=" + records.size() + " planted=" + planted;
    }

    private static void plant(String error, List<ProducerRecord<byte[], byte[]>> records, int partitions) {
        if (error.equals("nothing")) {
            return;
        }
        int at = records.size() - 1;
        ProducerRecord<byte[], byte[]> last = records.get(at);
        switch (error) {
            case "lose" -> records.remove(at);
            case "duplicate" -> records.add(last);
            case "swap" -> swap(records);
            case "corrupt" -> records.set(at, with(last, null, last.timestamp(), corrupt(last.value())));
            case "timestamp" -> records.set(at, with(last, null, last.timestamp() + 1, last.value()));
            case "header" -> last.headers().add("planted", new byte[0]);
            case "partition" -> {
                int wrong = (Topics.partitionOf(last.key(), partitions) + 1) % partitions;
                records.set(at, with(last, wrong, last.timestamp(), last.value()));
            }
            default -> throw new IllegalArgumentException("there is no error '" + error + "' to plant");
        }
    }

    /** The last two records of one key change places. */
    private static void swap(List<ProducerRecord<byte[], byte[]>> records) {
        for (int later = records.size() - 1; later > 0; later--) {
            for (int earlier = later - 1; earlier >= 0; earlier--) {
                byte[] key = records.get(later).key();
                if (key != null && Arrays.equals(key, records.get(earlier).key())) {
                    records.set(later, records.set(earlier, records.get(later)));
                    return;
                }
            }
        }
        throw new IllegalArgumentException("no two records have one key: nothing to swap");
    }

    private static ProducerRecord<byte[], byte[]> with(
            ProducerRecord<byte[], byte[]> record, Integer partition, long timestamp, byte[] value) {
        Iterable<Header> headers = record.headers();
        return new ProducerRecord<>(record.topic(), partition, timestamp, record.key(), value, headers);
    }

    /** Of JSON, the last letter of a text or number; so that it still parses, for the judge to compare. */
    private static byte[] corrupt(byte[] value) {
        byte[] changed = value == null ? new byte[] {'x'} : value.clone();
        String text = new String(changed, StandardCharsets.UTF_8);
        int at = text.indexOf("@subscribers");
        if (at >= 0) {
            return text.replace("@subscribers", "@Subscribers").getBytes(StandardCharsets.UTF_8);
        }
        if (changed.length == 0) {
            return new byte[] {'x'};
        }
        changed[changed.length - 1] ^= 1;
        return changed;
    }

    private Reference() {}
}
