package judge;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.header.Header;

/**
 * Were the well-formed orders of each country counted one by one, each once, and does the state fold to the last count? By how much an
 * output's sum has grown says which order it is of: amounts are unique, but for what a producer wrote twice.
 *
 * Orders come to the counts by a stream, which has a partition for each of the state's, and outputs leave them by topic: so those of one
 * partition of each, whichever countries they are of, stand in their orders' order. Where stream and output have equally many partitions,
 * the stream's is the output's.
 */
final class Counts {
    private static final Header[] NO_HEADERS = {};

    private static final class Source {
        final String country;
        final int partition;
        final long offset;
        final long timestamp;
        final Header[] headers;
        boolean met;
        /** The same order, written again by a producer that could not know that its broker had it: it counts twice. */
        Source again;

        Source(String country, ConsumerRecord<byte[], byte[]> record) {
            this.country = country;
            partition = record.partition();
            offset = record.offset();
            timestamp = record.timestamp();
            Header[] given = record.headers().toArray();
            headers = given.length == 0 ? NO_HEADERS : given;
        }

        @Override
        public String toString() {
            return "order " + partition + "@" + offset + " of " + country;
        }
    }

    /** What the orders of a country come to, and what the outputs so far say. */
    private static final class Country {
        long count;
        long sum;
        long told;
        long toldSum;
    }

    private final String bootstrap;
    private final Duration patience;
    private final Map<Long, Source> sources = new HashMap<>();
    private final TreeMap<String, Country> countries = new TreeMap<>();
    private final TreeMap<ByteBuffer, byte[]> fold = new TreeMap<>();
    private final Findings findings = new Findings();
    /** Of what came by each partition of the stream. */
    private final Order[] orderByStream;
    private long orders;
    private long wellFormed;
    private long outputs;
    private long changes;

    private Counts(Arguments arguments, int partitions) {
        bootstrap = arguments.text(0, "BOOTSTRAP");
        patience = arguments.patience();
        orderByStream = new Order[partitions];
        Arrays.setAll(orderByStream, partition -> new Order());
    }

    static String run(Arguments arguments) throws Exception {
        String out = arguments.text(2, "OUT");
        String changelog = arguments.text(3, "CHANGELOG");
        int partitions = (int) arguments.number(4, "PARTITIONS");
        Counts counts = new Counts(arguments, partitions);
        Topics.read(counts.bootstrap, arguments.text(1, "ORDERS"), counts.patience, counts::order);
        Judge.requireInput(!counts.sources.isEmpty());
        counts.await(out);
        int outPartitions = Topics.partitions(counts.bootstrap, out);
        Topics.read(counts.bootstrap, out, counts.patience, record -> counts.output(record, outPartitions));
        counts.lost();
        int found = Topics.partitions(counts.bootstrap, changelog);
        if (found != partitions) {
            counts.findings.add("partitions", () -> changelog + " has " + found + " partitions, not " + partitions);
        }
        Topics.read(counts.bootstrap, changelog, counts.patience, record -> counts.change(record, partitions));
        counts.compare();
        String line = "orders=" + counts.orders + " counted=" + counts.wellFormed + " outputs=" + counts.outputs
                + " changes=" + counts.changes + " entries=" + counts.fold.size();
        if (arguments.option("http") != null) {
            line += " listed=" + new Listing(arguments, counts.findings).compare(counts.fold);
            if (arguments.option("sample") != null) {
                line += " queried=" + new Queries(arguments, partitions, counts.findings).ask(counts.fold);
            }
        }
        return counts.findings.verdict(line);
    }

    private void order(ConsumerRecord<byte[], byte[]> record) {
        orders++;
        Orders.Order order = Orders.read(record);
        if (order == null) {
            return;
        }
        Country country = countries.computeIfAbsent(order.country(), name -> new Country());
        country.count++;
        country.sum += order.amount();
        wellFormed++;
        Source source = new Source(order.country(), record);
        Source before = sources.putIfAbsent(order.amount(), source);
        if (before == null) {
            return;
        }
        while (before.again != null) {
            before = before.again;
        }
        if (before.partition != source.partition || !before.country.equals(source.country)) {
            throw new IllegalStateException("two orders have the amount " + order.amount() + ": outputs can't be told apart");
        }
        before.again = source;
    }

    /** Between orders and outputs there is a topic that the pipeline works through: it may be behind for as long as it gets on. */
    private void await(String out) throws Exception {
        long reached = -1;
        long deadline = System.nanoTime() + patience.toNanos();
        while (System.nanoTime() < deadline) {
            long[] found = {0};
            Topics.read(bootstrap, out, patience, record -> found[0]++);
            if (found[0] >= wellFormed) {
                return;
            }
            if (found[0] > reached) {
                reached = found[0];
                deadline = System.nanoTime() + patience.toNanos();
            }
            Thread.sleep(500);
        }
    }

    private void output(ConsumerRecord<byte[], byte[]> record, int partitions) {
        outputs++;
        Country country = record.key() == null ? null : countries.get(new String(record.key(), StandardCharsets.UTF_8));
        long[] total = total(record.value());
        if (country == null || total == null) {
            findings.add("unexpected", () -> shown(record));
            return;
        }
        if (Topics.partitionOf(record.key(), partitions) != record.partition()) {
            findings.add("partition", () -> shown(record));
        }
        if (total[0] != country.told + 1) {
            long before = country.told;
            findings.add("count", () -> shown(record) + " after count " + before);
        }
        long amount = total[1] - country.toldSum;
        country.told = total[0];
        country.toldSum = total[1];
        source(record, country, amount);
    }

    private void source(ConsumerRecord<byte[], byte[]> record, Country country, long amount) {
        Source source = next(amount);
        if (source == null || countries.get(source.country) != country) {
            findings.add("sum", () -> shown(record) + " grew by " + amount + ", which no order of it is of");
            return;
        }
        if (source.met) {
            findings.add("duplicate", () -> shown(record) + " of " + source);
            return;
        }
        compare(record, source);
    }

    /** The first order of that amount that was not met yet, the last one where all were; null where there is none. */
    private Source next(long amount) {
        Source source = sources.get(amount);
        while (source != null && source.met && source.again != null) {
            source = source.again;
        }
        return source;
    }

    private void compare(ConsumerRecord<byte[], byte[]> record, Source source) {
        source.met = true;
        Order order = orderByStream[Topics.partitionOf(record.key(), orderByStream.length)];
        if (!order.follows(source.partition, record.partition(), source.offset)) {
            findings.add("reordered", () -> shown(record) + " of " + source);
        }
        if (record.timestamp() != source.timestamp) {
            findings.add("timestamp", () -> shown(record) + " " + record.timestamp() + " of " + source);
        }
        if (!Topics.sameHeaders(record.headers().toArray(), source.headers)) {
            findings.add("headers", () -> shown(record) + " " + record.headers() + " of " + source);
        }
    }

    private void lost() {
        sources.forEach((amount, source) -> {
            for (Source one = source; one != null; one = one.again) {
                if (!one.met) {
                    Source lost = one;
                    findings.add("lost", () -> lost + " amount " + amount);
                }
            }
        });
        countries.forEach((name, country) -> {
            if (country.told != country.count || country.toldSum != country.sum) {
                findings.add("total", () -> name + " ends with " + country.told + " orders of " + country.toldSum + " and not "
                        + country.count + " of " + country.sum);
            }
        });
    }

    private void change(ConsumerRecord<byte[], byte[]> record, int partitions) {
        changes++;
        if (record.key() == null || Topics.partitionOf(record.key(), partitions) != record.partition()) {
            findings.add("partition", () -> shown(record));
            return;
        }
        ByteBuffer key = ByteBuffer.wrap(record.key());
        if (record.value() == null) {
            fold.remove(key);
            return;
        }
        byte[] before = fold.put(key, record.value());
        long[] total = total(record.value());
        long[] last = before == null ? null : total(before);
        if (total != null && last != null && total[0] <= last[0]) {
            findings.add("back", () -> shown(record) + " after count " + last[0]);
        }
    }

    private void compare() {
        countries.forEach((name, country) -> {
            byte[] folded = fold.get(ByteBuffer.wrap(name.getBytes(StandardCharsets.UTF_8)));
            if (folded == null) {
                findings.add("missing", () -> name);
            } else if (!Arrays.equals(total(folded), new long[] {country.count, country.sum})) {
                findings.add("different", () ->
                        name + ": " + Topics.show(folded) + " and not " + country.count + " of " + country.sum);
            }
        });
        fold.forEach((key, value) -> {
            if (!countries.containsKey(new String(key.array(), StandardCharsets.UTF_8))) {
                findings.add("unexpected", () -> Topics.show(key.array()) + ": " + Topics.show(value) + " in the changelog");
            }
        });
    }

    /** Count and sum, or null where it is anything else. */
    private static long[] total(byte[] value) {
        JsonNode total = Rules.parse(value);
        if (total == null || total.size() != 2 || !isCount(total.get("count")) || !isCount(total.get("sum"))) {
            return null;
        }
        return new long[] {total.get("count").longValue(), total.get("sum").longValue()};
    }

    private static boolean isCount(JsonNode node) {
        return node != null && node.isIntegralNumber() && node.canConvertToLong();
    }

    private static String shown(ConsumerRecord<byte[], byte[]> record) {
        return Topics.place(record) + " " + Topics.show(record.key()) + " " + Topics.show(record.value());
    }
}
