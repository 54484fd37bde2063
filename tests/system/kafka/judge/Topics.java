package judge;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.function.Consumer;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.Utils;

/** Kafka's side of the judge: topics made, read to their end, and written to. */
final class Topics {
    /** How long a new topic may take to have all its leaders. */
    private static final Duration LEADERS = Duration.ofSeconds(30);

    static String create(Arguments arguments) throws Exception {
        String name = arguments.text(1, "NAME");
        int partitions = (int) arguments.number(2, "PARTITIONS");
        Map<String, String> configs = new HashMap<>();
        for (String config : arguments.from(3)) {
            int equals = config.indexOf('=');
            if (equals < 0) {
                throw new IllegalArgumentException(config + " is not config=value");
            }
            configs.put(config.substring(0, equals), config.substring(equals + 1));
        }
        try (Admin admin = admin(arguments.text(0, "BOOTSTRAP"))) {
            NewTopic topic = new NewTopic(name, Optional.of(partitions), Optional.empty()).configs(configs);
            admin.createTopics(List.of(topic)).all().get();
            awaitLeaders(admin, name, partitions);
        }
        return name + " partitions=" + partitions;
    }

    static String delete(Arguments arguments) throws Exception {
        String name = arguments.text(1, "NAME");
        try (Admin admin = admin(arguments.text(0, "BOOTSTRAP"))) {
            admin.deleteTopics(List.of(name)).all().get();
            long deadline = System.nanoTime() + LEADERS.toNanos();
            while (admin.listTopics().names().get().contains(name)) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("topic " + name + " is still there");
                }
                Thread.sleep(50);
            }
        }
        return name;
    }

    static String trim(Arguments arguments) throws Exception {
        TopicPartition partition = new TopicPartition(arguments.text(1, "TOPIC"), 0);
        RecordsToDelete before = RecordsToDelete.beforeOffset(arguments.number(2, "OFFSET"));
        try (Admin admin = admin(arguments.text(0, "BOOTSTRAP"))) {
            long start = admin.deleteRecords(Map.of(partition, before)).lowWatermarks().get(partition).get().lowWatermark();
            return partition + " start=" + start;
        }
    }

    static String commit(Arguments arguments) throws Exception {
        TopicPartition partition = new TopicPartition(arguments.text(2, "TOPIC"), 0);
        var offset = new OffsetAndMetadata(arguments.number(3, "OFFSET"));
        try (Admin admin = admin(arguments.text(0, "BOOTSTRAP"))) {
            admin.alterConsumerGroupOffsets(arguments.text(1, "GROUP"), Map.of(partition, offset)).all().get();
            return partition + " committed=" + offset.offset();
        }
    }

    static String size(Arguments arguments) throws Exception {
        String topic = arguments.text(1, "TOPIC");
        long bytes = 0;
        try (Admin admin = admin(arguments.text(0, "BOOTSTRAP"))) {
            List<Integer> brokers = new ArrayList<>();
            admin.describeCluster().nodes().get().forEach(node -> brokers.add(node.id()));
            for (var folders : admin.describeLogDirs(brokers).allDescriptions().get().values()) {
                for (var folder : folders.values()) {
                    for (var replica : folder.replicaInfos().entrySet()) {
                        bytes += replica.getKey().topic().equals(topic) ? replica.getValue().size() : 0;
                    }
                }
            }
        }
        return "bytes=" + bytes;
    }

    private static void awaitLeaders(Admin admin, String name, int partitions) throws Exception {
        long deadline = System.nanoTime() + LEADERS.toNanos();
        while (System.nanoTime() < deadline) {
            try {
                var described = admin.describeTopics(List.of(name)).allTopicNames().get().get(name).partitions();
                if (described.stream().filter(p -> p.leader() != null && !p.leader().isEmpty()).count() == partitions) {
                    return;
                }
            } catch (ExecutionException notYetKnown) {
                // The broker that answers may learn of the topic a moment after the one that made it.
            }
            Thread.sleep(50);
        }
        throw new IllegalStateException("topic " + name + " has no leaders yet");
    }

    static Admin admin(String bootstrap) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        return Admin.create(properties);
    }

    static KafkaProducer<byte[], byte[]> producer(String bootstrap, Map<String, String> settings) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("linger.ms", 20);
        properties.put("batch.size", 256 << 10);
        properties.put("max.request.size", 8 << 20);
        properties.putAll(settings);
        return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(String bootstrap) {
        return consumer(bootstrap, IsolationLevel.READ_COMMITTED);
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, IsolationLevel isolation) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("isolation.level", isolation.toString());
        properties.put("auto.offset.reset", "none");
        properties.put("enable.auto.commit", false);
        properties.put("max.poll.records", 5000);
        // A consumer that closes waits for its fetch in flight.
        properties.put("fetch.max.wait.ms", 50);
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static int partitions(String bootstrap, String topic) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap)) {
            return partitions(consumer, topic).size();
        }
    }

    private static List<TopicPartition> partitions(KafkaConsumer<byte[], byte[]> consumer, String topic) {
        List<TopicPartition> partitions = new ArrayList<>();
        consumer.partitionsFor(topic).forEach(info -> partitions.add(new TopicPartition(topic, info.partition())));
        if (partitions.isEmpty()) {
            throw new IllegalArgumentException("there is no topic " + topic);
        }
        return partitions;
    }

    /**
     * Hands every committed record to {@code visit}, up to the high watermarks of this moment; per partition in order.
     *
     * @throws Judge.Wrong if for {@code patience} nothing more can be read though a watermark is further on: an open
     *     transaction hides the rest
     */
    static void read(String bootstrap, String topic, Duration patience, Consumer<ConsumerRecord<byte[], byte[]>> visit)
            throws Exception {
        read(bootstrap, topic, IsolationLevel.READ_COMMITTED, ends(bootstrap, topic), patience, visit);
    }

    /** The high watermark of each partition. */
    static Map<TopicPartition, Long> ends(String bootstrap, String topic) throws Exception {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap)) {
            return highWatermarks(bootstrap, partitions(consumer, topic));
        }
    }

    /** The same up to {@code ends}, committed or not. */
    static void read(
            String bootstrap,
            String topic,
            IsolationLevel isolation,
            Map<TopicPartition, Long> ends,
            Duration patience,
            Consumer<ConsumerRecord<byte[], byte[]>> visit)
            throws Exception {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, isolation)) {
            List<TopicPartition> partitions = partitions(consumer, topic);
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Set<TopicPartition> open = new HashSet<>(partitions);
            long reached = -1;
            long deadline = System.nanoTime() + patience.toNanos();
            while (true) {
                open.removeIf(partition -> consumer.position(partition) >= ends.get(partition));
                if (open.isEmpty()) {
                    return;
                }
                long sum = 0;
                for (TopicPartition partition : partitions) {
                    sum += consumer.position(partition);
                }
                if (sum > reached) {
                    reached = sum;
                    deadline = System.nanoTime() + patience.toNanos();
                } else if (System.nanoTime() > deadline) {
                    throw new Judge.Wrong(hidden(consumer, open, ends));
                }
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    if (record.offset() < ends.get(new TopicPartition(topic, record.partition()))) {
                        visit.accept(record);
                    }
                }
            }
        }
    }

    private static String hidden(
            KafkaConsumer<byte[], byte[]> consumer, Set<TopicPartition> open, Map<TopicPartition, Long> ends) {
        TopicPartition first = open.iterator().next();
        return "an open transaction hides the rest of " + open.size() + " partitions: " + first + " can be read to offset "
                + consumer.position(first) + " of " + ends.get(first);
    }

    private static Map<TopicPartition, Long> highWatermarks(String bootstrap, List<TopicPartition> partitions)
            throws Exception {
        Map<TopicPartition, OffsetSpec> wanted = new HashMap<>();
        partitions.forEach(partition -> wanted.put(partition, OffsetSpec.latest()));
        Map<TopicPartition, Long> ends = new HashMap<>();
        try (Admin admin = admin(bootstrap)) {
            var options = new ListOffsetsOptions(IsolationLevel.READ_UNCOMMITTED);
            admin.listOffsets(wanted, options).all().get().forEach((partition, end) -> ends.put(partition, end.offset()));
        }
        return ends;
    }

    /** Where Java's producer puts a record with this key. */
    static int partitionOf(byte[] key, int partitions) {
        return Utils.toPositive(Utils.murmur2(key)) % partitions;
    }

    /** Whether the headers are the same but for the token that the fault-injected build puts on records. */
    static boolean sameHeaders(Header[] left, Header[] right) {
        return equal(withoutToken(left), withoutToken(right));
    }

    private static Header[] withoutToken(Header[] headers) {
        return Arrays.stream(headers).filter(header -> !header.key().equals(Tokens.HEADER)).toArray(Header[]::new);
    }

    private static boolean equal(Header[] left, Header[] right) {
        if (left.length != right.length) {
            return false;
        }
        for (int i = 0; i < left.length; i++) {
            if (!left[i].key().equals(right[i].key()) || !Arrays.equals(left[i].value(), right[i].value())) {
                return false;
            }
        }
        return true;
    }

    static String dump(Arguments arguments) throws Exception {
        ObjectMapper mapper = new ObjectMapper();
        Map<Integer, List<String>> lines = new TreeMap<>();
        read(arguments.text(0, "BOOTSTRAP"), arguments.text(1, "TOPIC"), arguments.patience(), record -> {
            ObjectNode line = mapper.createObjectNode();
            line.put("partition", record.partition()).put("offset", record.offset()).put("timestamp", record.timestamp());
            line.put("key", text(record.key())).put("value", text(record.value()));
            ArrayNode headers = line.putArray("headers");
            record.headers().forEach(h -> headers.addArray().add(h.key()).add(text(h.value())));
            lines.computeIfAbsent(record.partition(), p -> new ArrayList<>()).add(line.toString());
        });
        lines.values().forEach(partition -> partition.forEach(System.out::println));
        return null;
    }

    private static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    /** For a finding: short, readable, and null told from empty. */
    static String show(byte[] bytes) {
        if (bytes == null) {
            return "null";
        }
        String shown = new String(bytes, 0, Math.min(bytes.length, 300), StandardCharsets.UTF_8);
        return "'" + shown + (bytes.length > 300 ? "' and on, " + bytes.length + " bytes" : "'");
    }

    static String place(ConsumerRecord<?, ?> record) {
        return record.topic() + "/" + record.partition() + "@" + record.offset();
    }

    private Topics() {}
}
