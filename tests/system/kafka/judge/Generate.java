package judge;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Writes events that are a function of their number alone, so that any run can be repeated and continued. An event's id is its
 * key, so that an id lives in one partition; its number is its ts.
 */
final class Generate {
    /** 2026-01-01: event i is stamped i milliseconds later. */
    private static final long EPOCH_MS = 1_767_225_600_000L;
    /** A decimal "seq" header goes on every tenth record. */
    private static final int HEADER_EVERY = 10;
    /** How many records are written between two looks for the file of {@code --while}. */
    private static final int LOOK_EVERY = 64;

    private static final String[] FIRST = {
        "Ada", "Grace", "Edsger", "Barbara", "Alan", "Margaret", "Donald", "Jürgen", "Leslie", "Frances", "Niklaus", "Søren",
        "Tony", "Radia", "Dennis", "Katherine",
    };
    private static final String[] LAST = {
        "Lovelace", "Hopper", "Dijkstra", "Liskov", "Turing", "Hamilton", "Knuth", "Strauß", "Lamport", "Allen", "Wirth",
        "Müller", "Hoare", "Perlman", "Ritchie", "Johnson",
    };
    private static final String[] COUNTRY = {"DE", "FR", "NL", "DK", "US", "JP", "BR", "IN"};
    private static final String[] PLAN = {"free-trial", "personal-monthly", "business-yearly", "enterprise"};

    /** Makes record number {@code i}. */
    interface Kind {
        ProducerRecord<byte[], byte[]> record(String topic, long i);
    }

    static String run(Arguments arguments) throws Exception {
        long ids = arguments.number(3, "IDS");
        long malformed = arguments.number(4, "MALFORMED_PER_MILLE");
        return write(arguments, (topic, i) -> event(topic, i, ids, malformed));
    }

    /** Writes COUNT records; fewer where the file of {@code --while} goes before. */
    static String write(Arguments arguments, Kind kind) throws Exception {
        String topic = arguments.text(1, "TOPIC");
        long rate = arguments.option("rate", Long.MAX_VALUE);
        long from = arguments.option("from", 0);
        long end = from + arguments.number(2, "COUNT");
        Path wanted = arguments.option("while") == null ? null : Path.of(arguments.option("while"));
        AtomicReference<Exception> failure = new AtomicReference<>();
        long start = System.nanoTime();
        long i = from;
        try (KafkaProducer<byte[], byte[]> producer = Topics.producer(arguments.text(0, "BOOTSTRAP"), Map.of())) {
            for (; i < end && (wanted == null || i % LOOK_EVERY != 0 || Files.exists(wanted)); i++) {
                pace(start, i - from, rate);
                producer.send(kind.record(topic, i), (metadata, error) -> {
                    if (error != null) {
                        failure.set(error);
                    }
                });
            }
            producer.flush();
        }
        if (failure.get() != null) {
            throw failure.get();
        }
        return "records=" + (i - from) + " from=" + from + " ms=" + (System.nanoTime() - start) / 1_000_000;
    }

    private static void pace(long start, long sent, long rate) {
        if (rate == Long.MAX_VALUE) {
            return;
        }
        long due = start + (long) (sent * (1e9 / rate));
        for (long now = System.nanoTime(); now < due; now = System.nanoTime()) {
            LockSupport.parkNanos(due - now);
        }
    }

    private static ProducerRecord<byte[], byte[]> event(String topic, long i, long ids, long malformed) {
        long random = mixed(i);
        String id = "u" + Long.remainderUnsigned(random, ids);
        return record(topic, i, id, isOneOf(random, malformed) ? malformed(id, i, mixed(random + 1)) : event(id, i, mixed(random + 2)));
    }

    /** Whether a record of this random number is one of so many in a thousand. */
    static boolean isOneOf(long random, long perMille) {
        return Long.remainderUnsigned(mixed(random), 1000) < perMille;
    }

    static ProducerRecord<byte[], byte[]> record(String topic, long i, String key, String text) {
        byte[] value = text == null ? null : text.getBytes(StandardCharsets.UTF_8);
        var record = new ProducerRecord<>(topic, null, EPOCH_MS + i, key.getBytes(StandardCharsets.UTF_8), value);
        if (i % HEADER_EVERY == 0) {
            record.headers().add("seq", Long.toString(i).getBytes(StandardCharsets.UTF_8));
        }
        return record;
    }

    private static String event(String id, long i, long random) {
        String first = FIRST[(int) (random & 15)];
        String last = LAST[(int) (random >>> 4 & 15)];
        StringBuilder json = new StringBuilder(192);
        json.append("{\"id\":\"").append(id).append("\",\"name\":\"").append(first).append(' ').append(last);
        json.append("\",\"age\":").append((random >>> 8 & 0xffffff) % 80);
        json.append(",\"country\":\"").append(COUNTRY[(int) (random >>> 32 & 7)]);
        json.append("\",\"ts\":").append(i);
        json.append(",\"email\":\"").append(id).append(".mailbox.for.news@subscribers.millstream.example.com\"");
        if ((random >>> 40 & 31) != 0) {
            json.append(",\"plan\":\"").append(PLAN[(int) (random >>> 48 & 3)]).append('"');
        }
        if ((random >>> 52 & 31) != 0) {
            json.append(",\"active\":").append((random >>> 60 & 1) == 0);
        }
        return json.append('}').toString();
    }

    private static String malformed(String id, long i, long random) {
        String event = event(id, i, random);
        return switch ((int) Long.remainderUnsigned(random, 7)) {
            case 0 -> event.substring(0, event.length() / 2);
            case 1 -> "event " + i + " is not JSON";
            case 2 -> null;
            case 3 -> event.replaceFirst("\"id\":\"[^\"]*\",", "");
            case 4 -> event.replaceFirst("\"age\":(\\d+)", "\"age\":\"$1\"");
            case 5 -> "{}";
            default -> "[" + event + "]";
        };
    }

    /** SplitMix64's finaliser. */
    static long mixed(long i) {
        long z = (i + 1) * 0x9e3779b97f4a7c15L;
        z = (z ^ z >>> 30) * 0xbf58476d1ce4e5b9L;
        z = (z ^ z >>> 27) * 0x94d049bb133111ebL;
        return z ^ z >>> 31;
    }

    private Generate() {}
}
