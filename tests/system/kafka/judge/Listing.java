package judge;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** Does every instance, page by page, list exactly the entries of the fold, each once, whichever of them hold the partitions? */
final class Listing {
    private static final int LIMIT = 500;
    /** How long instances may restore or rebalance, or be a commit behind what could be read of the changelog. */
    private static final Duration PATIENCE = Duration.ofSeconds(30);
    private static final long BACK_OFF_MS = 200;

    /** One listing. {@code refused} is null where it came to its end. */
    private static final class Look {
        final Map<ByteBuffer, JsonNode> entries = new TreeMap<>();
        final List<String> twice = new ArrayList<>();
        String refused;
    }

    private final String[] urls;
    private final String path;
    private final Findings findings;
    private final HttpClient client = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1).connectTimeout(Duration.ofSeconds(5)).build();

    Listing(Arguments arguments, Findings findings) {
        urls = arguments.option("http").split(",");
        if (arguments.option("pipeline") == null || arguments.option("map") == null) {
            throw new IllegalArgumentException("--http wants --pipeline and --map");
        }
        path = "/v1/pipelines/" + arguments.option("pipeline") + "/maps/" + arguments.option("map") + "/entries?limit=" + LIMIT;
        this.findings = findings;
    }

    /** Returns how many entries were listed. */
    int compare(Map<ByteBuffer, byte[]> fold) throws InterruptedException {
        Map<ByteBuffer, JsonNode> expected = new TreeMap<>();
        fold.forEach((key, value) -> expected.put(key, Rules.parse(value)));
        int listed = 0;
        for (String url : urls) {
            long deadline = System.nanoTime() + PATIENCE.toNanos();
            Look look = look(url);
            while (!(look.refused == null && look.twice.isEmpty() && look.entries.equals(expected))
                    && System.nanoTime() < deadline) {
                Thread.sleep(BACK_OFF_MS);
                look = look(url);
            }
            report(look, expected);
            listed += look.entries.size();
        }
        return listed;
    }

    private void report(Look look, Map<ByteBuffer, JsonNode> expected) {
        if (look.refused != null) {
            findings.add("unlisted", () -> look.refused);
            return;
        }
        look.twice.forEach(key -> findings.add("twice", () -> key));
        expected.forEach((key, value) -> {
            JsonNode listed = look.entries.get(key);
            if (!value.equals(listed)) {
                findings.add("listed", () -> Topics.show(key.array()) + " as " + listed + " and not " + value);
            }
        });
        look.entries.forEach((key, value) -> {
            if (!expected.containsKey(key)) {
                findings.add("listed", () -> Topics.show(key.array()) + " as " + value + ", which is not in the changelog");
            }
        });
    }

    private Look look(String url) throws InterruptedException {
        Look look = new Look();
        JsonNode page = null;
        do {
            String after = page == null ? "" : "&after=" + URLEncoder.encode(page.get("next").textValue(), StandardCharsets.UTF_8);
            page = page(url + path + after, look);
        } while (page != null && !page.get("next").isNull());
        return look;
    }

    /** Null where it was refused. */
    private JsonNode page(String uri, Look look) throws InterruptedException {
        try {
            HttpRequest request = HttpRequest.newBuilder(URI.create(uri)).timeout(Duration.ofSeconds(10)).build();
            HttpResponse<byte[]> answer = client.send(request, BodyHandlers.ofByteArray());
            JsonNode page = answer.statusCode() == 200 ? Rules.parse(answer.body()) : null;
            if (page == null) {
                look.refused = uri + " said " + answer.statusCode() + " " + Topics.show(answer.body());
                return null;
            }
            for (JsonNode entry : page.get("entries")) {
                ByteBuffer key = ByteBuffer.wrap(entry.get("key").textValue().getBytes(StandardCharsets.UTF_8));
                if (look.entries.put(key, entry.get("value")) != null) {
                    look.twice.add(entry.toString());
                }
            }
            return page;
        } catch (IOException unreachable) {
            look.refused = uri + ": " + unreachable;
            return null;
        }
    }
}
