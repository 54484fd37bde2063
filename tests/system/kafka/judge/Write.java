package judge;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Writes the records that a test spells out: a line each, key, tab, value; {@code \N} is null, {@code \x} begins bytes in
 * hexadecimal. All go to partition 0, or to another; or each to where its key belongs.
 */
final class Write {
    static String run(Arguments arguments) throws Exception {
        String topic = arguments.text(1, "TOPIC");
        String partition = arguments.option("partition");
        Integer to = partition == null ? Integer.valueOf(0) : partition.equals("hash") ? null : Integer.valueOf(partition);
        boolean open = arguments.option("open") != null;
        int written = 0;
        try (KafkaProducer<byte[], byte[]> producer = producer(arguments)) {
            if (open) {
                producer.initTransactions();
                producer.beginTransaction();
            }
            for (String line : Files.readAllLines(Path.of(arguments.text(2, "FILE")))) {
                String[] fields = line.split("\t", -1);
                if (fields.length != 2) {
                    throw new IllegalArgumentException("not KEY, tab, VALUE: " + line);
                }
                producer.send(new ProducerRecord<>(topic, to, bytes(fields[0]), bytes(fields[1])));
                written++;
            }
            producer.flush();
            if (open) {
                // A closed producer would abort: the process has to go first.
                System.out.println("judge: OK write records=" + written + ", in a transaction that is left open");
                System.out.flush();
                Runtime.getRuntime().halt(0);
            }
        }
        return "records=" + written;
    }

    private static KafkaProducer<byte[], byte[]> producer(Arguments arguments) {
        Map<String, String> settings = new HashMap<>();
        put(settings, "compression.type", arguments.option("codec"));
        put(settings, "transactional.id", arguments.option("open"));
        return Topics.producer(arguments.text(0, "BOOTSTRAP"), settings);
    }

    private static void put(Map<String, String> settings, String name, String value) {
        if (value != null) {
            settings.put(name, value);
        }
    }

    private static byte[] bytes(String field) {
        if (field.startsWith("\\x")) {
            return HexFormat.of().parseHex(field.substring(2));
        }
        return field.equals("\\N") ? null : field.getBytes(StandardCharsets.UTF_8);
    }

    private Write() {}
}
