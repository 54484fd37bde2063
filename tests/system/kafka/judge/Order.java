package judge;

import java.util.HashMap;
import java.util.Map;

/**
 * The order that a pipeline promises: of the records in one output partition, those that stem from one input partition stand
 * in their input's order. Where a stream lies between the two, this is so of what passed one of its partitions.
 */
final class Order {
    private record Pair(int input, int output) {}

    private final Map<Pair, Long> last = new HashMap<>();

    /** The input offset of the last record of this pair, or -1. */
    long last(int inputPartition, int outputPartition) {
        return last.getOrDefault(new Pair(inputPartition, outputPartition), -1L);
    }

    /** False where a later record of the input stands before this one. */
    boolean follows(int inputPartition, int outputPartition, long inputOffset) {
        Long before = last.put(new Pair(inputPartition, outputPartition), inputOffset);
        return before == null || before < inputOffset;
    }
}
