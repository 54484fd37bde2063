package judge;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.TopicPartition;

/** Loads what the verbs need, once, for the archive of parsed classes that judge.sh keeps. No broker is behind its port. */
final class Warm {
    private static final String NOBODY = "127.0.0.1:1";

    static String run(Arguments arguments) {
        Rules.judge("{\"id\":\"u\",\"age\":1}".getBytes(StandardCharsets.UTF_8), 0);
        try (KafkaConsumer<byte[], byte[]> consumer = Topics.consumer(NOBODY);
                KafkaProducer<byte[], byte[]> producer = Topics.producer(NOBODY, Map.of("transactional.id", "warm"));
                Admin admin = Topics.admin(NOBODY)) {
            consumer.assign(List.of(new TopicPartition("none", 0)));
            consumer.seekToBeginning(consumer.assignment());
            consumer.poll(Duration.ofMillis(300));
            admin.describeTopics(List.of("none"));
            producer.close(Duration.ZERO);
            admin.close(Duration.ZERO);
        }
        return null;
    }

    private Warm() {}
}
