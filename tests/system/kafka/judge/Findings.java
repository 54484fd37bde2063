package judge;

import java.util.Map;
import java.util.TreeMap;
import java.util.function.Supplier;

/** What was found wrong: counted by kind, the first five of each printed as they are found. */
final class Findings {
    private static final int PRINTED_MAX = 5;

    private final Map<String, Long> counts = new TreeMap<>();

    synchronized void add(String kind, Supplier<String> detail) {
        if (counts.merge(kind, 1L, Long::sum) <= PRINTED_MAX) {
            System.out.println(kind + ": " + detail.get());
        }
    }

    synchronized long count(String kind) {
        return counts.getOrDefault(kind, 0L);
    }

    /** Returns {@code counts} if nothing was found, else throws with what was. */
    synchronized String verdict(String counts) {
        if (this.counts.isEmpty()) {
            return counts;
        }
        StringBuilder line = new StringBuilder();
        this.counts.forEach((kind, count) -> line.append(kind).append('=').append(count).append(' '));
        throw new Judge.Wrong(line + "in " + counts);
    }
}
