package judge;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.util.Locale;

/**
 * The reference logic of the test pipelines: an event is parsed, minors are dropped, names are put in upper case.
 *
 * <p>An event is a JSON object with a non-empty string id, strings name, country and email, integers age (0 and up) and
 * ts, and if present a string plan and a boolean active. Anything else is a failure of that record.
 */
final class Rules {
    private static final ObjectMapper MAPPER = new ObjectMapper()
            .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
            .enable(JsonParser.Feature.STRICT_DUPLICATE_DETECTION);

    enum Kind { FAILED, DROPPED, KEPT }

    /** {@code id} and {@code output} are null unless KEPT; {@code ts} is the event's unique number. */
    record Ruling(Kind kind, String id, long ts, ObjectNode output) {}

    private static final Ruling FAILED = new Ruling(Kind.FAILED, null, 0, null);

    static Ruling judge(byte[] value, long minAge) {
        JsonNode node = parse(value);
        if (!(node instanceof ObjectNode event) || !isEvent(event)) {
            return FAILED;
        }
        long ts = event.get("ts").longValue();
        if (event.get("age").longValue() < minAge) {
            return new Ruling(Kind.DROPPED, null, ts, null);
        }
        event.put("name", event.get("name").textValue().toUpperCase(Locale.ROOT));
        return new Ruling(Kind.KEPT, event.get("id").textValue(), ts, event);
    }

    /** Null where the bytes are not one whole JSON value. */
    static JsonNode parse(byte[] value) {
        try {
            return value == null || value.length == 0 ? null : MAPPER.readTree(value);
        } catch (IOException malformed) {
            return null;
        }
    }

    private static boolean isEvent(ObjectNode event) {
        return isText(event, "id") && !event.get("id").textValue().isEmpty()
                && isText(event, "name") && isText(event, "country") && isText(event, "email")
                && isInteger(event, "age") && event.get("age").longValue() >= 0
                && isInteger(event, "ts")
                && (!event.has("plan") || isText(event, "plan"))
                && (!event.has("active") || event.get("active").isBoolean());
    }

    private static boolean isText(ObjectNode event, String field) {
        JsonNode node = event.get(field);
        return node != null && node.isTextual();
    }

    private static boolean isInteger(ObjectNode event, String field) {
        JsonNode node = event.get(field);
        return node != null && node.isIntegralNumber() && node.canConvertToLong();
    }

    private Rules() {}
}
