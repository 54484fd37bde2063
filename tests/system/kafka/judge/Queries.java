package judge;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.NavigableMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicIntegerArray;

/** Does every instance serve, between them, exactly the entries of the fold? Sixteen askers, connections kept alive. */
final class Queries {
    private static final int ASKERS = 16;
    private static final int ABSENT_KEYS = 100;
    /** How long instances may restore or rebalance before a key counts as unanswered. */
    private static final Duration PATIENCE = Duration.ofSeconds(60);
    /** Each costs the whole patience: past this many the rest is not asked. */
    private static final int UNANSWERED_MAX = 20;
    private static final long BACK_OFF_MS = 100;

    private final String[] urls;
    private final String path;
    private final long sample;
    private final int partitions;
    private final Findings findings;
    private final HttpClient client = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1).connectTimeout(Duration.ofSeconds(5)).build();
    /** Which URL answered last for a partition: it is asked first. */
    private final AtomicIntegerArray owners;

    /** What to ask for; {@code value} is null where there should be no entry. */
    private record Question(byte[] key, byte[] value) {}

    Queries(Arguments arguments, int partitions, Findings findings) {
        urls = arguments.option("http").split(",");
        if (arguments.option("pipeline") == null || arguments.option("map") == null) {
            throw new IllegalArgumentException("--http wants --pipeline and --map");
        }
        path = "/v1/pipelines/" + arguments.option("pipeline") + "/maps/" + arguments.option("map") + "/entries/";
        sample = arguments.option("sample", Long.MAX_VALUE);
        this.partitions = partitions;
        this.findings = findings;
        owners = new AtomicIntegerArray(partitions);
    }

    /** Returns how many keys were asked for. */
    int ask(NavigableMap<ByteBuffer, byte[]> fold) throws Exception {
        List<Question> questions = new ArrayList<>();
        long step = Math.max(1, fold.size() / Math.max(1, sample));
        long index = 0;
        for (var entry : fold.entrySet()) {
            if (index++ % step == 0) {
                questions.add(new Question(entry.getKey().array(), entry.getValue()));
            }
        }
        for (int i = 0; i < ABSENT_KEYS; i++) {
            byte[] key = ("absent/" + i + "?ü%20 +#").getBytes(StandardCharsets.UTF_8);
            if (!fold.containsKey(ByteBuffer.wrap(key))) {
                questions.add(new Question(key, null));
            }
        }
        ExecutorService askers = Executors.newFixedThreadPool(ASKERS);
        List<Future<?>> parts = new ArrayList<>();
        for (int asker = 0; asker < ASKERS; asker++) {
            int first = asker;
            parts.add(askers.submit(() -> {
                for (int i = first; i < questions.size(); i += ASKERS) {
                    ask(questions.get(i));
                }
                return null;
            }));
        }
        for (Future<?> part : parts) {
            part.get();
        }
        askers.shutdown();
        return questions.size();
    }

    private void ask(Question question) throws InterruptedException {
        if (findings.count("unanswered") >= UNANSWERED_MAX) {
            return;
        }
        int partition = Topics.partitionOf(question.key, partitions);
        int owner = owners.get(partition);
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        String refused = "";
        while (System.nanoTime() < deadline) {
            for (int i = 0; i < urls.length; i++) {
                int candidate = (owner + i) % urls.length;
                try {
                    HttpResponse<byte[]> answer = get(urls[candidate], question.key);
                    if (answer.statusCode() != 421 && answer.statusCode() != 503) {
                        owners.set(partition, candidate);
                        compare(question, answer);
                        return;
                    }
                    refused = urls[candidate] + " said " + answer.statusCode();
                } catch (IOException unreachable) {
                    refused = urls[candidate] + ": " + unreachable;
                }
            }
            Thread.sleep(BACK_OFF_MS);
        }
        String last = refused;
        findings.add("unanswered", () -> Topics.show(question.key) + " of partition " + partition + ": " + last);
    }

    private HttpResponse<byte[]> get(String url, byte[] key) throws IOException, InterruptedException {
        URI uri = URI.create(url + path + percentEncoded(key));
        return client.send(HttpRequest.newBuilder(uri).timeout(Duration.ofSeconds(10)).build(), BodyHandlers.ofByteArray());
    }

    private void compare(Question question, HttpResponse<byte[]> answer) {
        boolean right = question.value == null
                ? answer.statusCode() == 404
                : answer.statusCode() == 200 && Arrays.equals(answer.body(), question.value);
        if (!right) {
            findings.add("served", () -> Topics.show(question.key) + " as " + answer.statusCode() + " "
                    + Topics.show(answer.body()) + " and not " + Topics.show(question.value));
        }
    }

    /** Everything but RFC 3986's unreserved characters. */
    private static String percentEncoded(byte[] key) {
        StringBuilder text = new StringBuilder(key.length);
        for (byte b : key) {
            boolean plain = b >= '0' && b <= '9' || b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z'
                    || b == '-' || b == '.' || b == '_' || b == '~';
            if (plain) {
                text.append((char) b);
            } else {
                text.append(String.format("%%%02X", b));
            }
        }
        return text.toString();
    }
}
