package judge;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** A verb's arguments: positions first to last, and options as {@code --name value}. */
final class Arguments {
    private final List<String> positions = new ArrayList<>();
    private final Map<String, String> options = new HashMap<>();

    Arguments(List<String> words) {
        for (int i = 0; i < words.size(); i++) {
            String word = words.get(i);
            if (!word.startsWith("--")) {
                positions.add(word);
            } else if (i + 1 < words.size()) {
                options.put(word.substring(2), words.get(++i));
            } else {
                throw new IllegalArgumentException(word + " wants a value");
            }
        }
    }

    String text(int position, String name) {
        if (position >= positions.size()) {
            throw new IllegalArgumentException("argument " + (position + 1) + " is missing: " + name);
        }
        return positions.get(position);
    }

    long number(int position, String name) {
        return Long.parseLong(text(position, name));
    }

    List<String> from(int position) {
        return positions.subList(Math.min(position, positions.size()), positions.size());
    }

    /** Null where the option was not given. */
    String option(String name) {
        return options.get(name);
    }

    long option(String name, long otherwise) {
        String value = options.get(name);
        return value == null ? otherwise : Long.parseLong(value);
    }

    Duration patience() {
        return Duration.ofSeconds(option("patience", 30));
    }
}
