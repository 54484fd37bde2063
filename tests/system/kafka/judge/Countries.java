package judge;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;

/**
 * The table that outputs are joined with: the last value of each key of a topic, an object with a name. It has to stand still
 * while events are processed. Without one, outputs have no name of a country.
 */
final class Countries {
    private final Map<String, String> names = new HashMap<>();
    private final boolean given;

    /** The topic of {@code --countries}, where it was given. */
    Countries(Arguments arguments) throws Exception {
        String topic = arguments.option("countries");
        given = topic != null;
        if (given) {
            Topics.read(arguments.text(0, "BOOTSTRAP"), topic, arguments.patience(), record -> {
                String code = new String(record.key(), StandardCharsets.UTF_8);
                JsonNode country = Rules.parse(record.value());
                if (country == null) {
                    names.remove(code);
                } else {
                    names.put(code, country.get("name").textValue());
                }
            });
        }
    }

    /** What comes out of an event. */
    ObjectNode joined(ObjectNode output) {
        if (given) {
            // Null where there is none.
            output.put("country_name", names.get(output.get("country").textValue()));
        }
        return output;
    }
}
