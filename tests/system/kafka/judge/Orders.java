package judge;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BiPredicate;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;

/**
 * Orders of customers from countries: made from their number alone, read by the judge's own rules, and counted by them, right or with
 * an error planted. A customer is the key of his orders; an order's number is its amount, so that no two amounts are equal.
 */
final class Orders {
    /** One order in four is of one of the first so many countries: some totals change all the time, most of them seldom. */
    private static final long BUSY = 16;
    private static final int LETTERS = 26;

    /** What counts of a well-formed order; {@code from} is where it stands. */
    record Order(String country, long amount, ConsumerRecord<byte[], byte[]> from) {
        /** Where the country stands among so many partitions. */
        int partition(int partitions) {
            return Topics.partitionOf(country.getBytes(StandardCharsets.UTF_8), partitions);
        }
    }

    static String generate(Arguments arguments) throws Exception {
        long customers = arguments.number(3, "CUSTOMERS");
        long malformed = arguments.number(4, "MALFORMED_PER_MILLE");
        long countries = arguments.number(5, "COUNTRIES");
        return Generate.write(arguments, (topic, i) -> {
            long random = Generate.mixed(i);
            String customer = "c" + Long.remainderUnsigned(random, customers);
            long from = (random & 3) == 0 ? Math.min(BUSY, countries) : countries;
            String country = name(Long.remainderUnsigned(Generate.mixed(random + 1), from), countries);
            String order = "{\"order\":\"o" + i + "\",\"customer\":\"" + customer + "\",\"country\":\"" + country
                    + "\",\"amount\":" + i + "}";
            boolean broken = Generate.isOneOf(random, malformed);
            return Generate.record(topic, i, customer, broken ? malformed(order, i, Generate.mixed(random + 2)) : order);
        });
    }

    /** As many letters as it takes to tell all countries apart. */
    private static String name(long number, long countries) {
        StringBuilder letters = new StringBuilder();
        for (long left = countries - 1; left > 0 || letters.isEmpty(); left /= LETTERS) {
            letters.append((char) ('A' + number % LETTERS));
            number /= LETTERS;
        }
        return letters.reverse().toString();
    }

    private static String malformed(String order, long i, long random) {
        return switch ((int) Long.remainderUnsigned(random, 8)) {
            case 0 -> order.substring(0, order.length() / 2);
            case 1 -> "order " + i + " is not JSON";
            case 2 -> null;
            case 3 -> order.replaceFirst("\"country\":\"[^\"]*\",", "");
            case 4 -> order.replaceFirst("\"country\":\"[^\"]*\"", "\"country\":\"\"");
            case 5 -> order.replaceFirst("\"amount\":(\\d+)", "\"amount\":\"$1\"");
            case 6 -> order.replaceFirst("\"amount\":(\\d+)", "\"amount\":-1$1");
            default -> "[" + order + "]";
        };
    }

    /** An object with a non-empty string country and a whole amount, 0 and up; null for anything else, which is not counted. */
    static Order read(ConsumerRecord<byte[], byte[]> record) {
        JsonNode order = Rules.parse(record.value());
        JsonNode country = order == null ? null : order.get("country");
        JsonNode amount = order == null ? null : order.get("amount");
        boolean counts = country != null && country.isTextual() && !country.textValue().isEmpty()
                && amount != null && amount.isIntegralNumber() && amount.canConvertToLong() && amount.longValue() >= 0;
        return counts ? new Order(country.textValue(), amount.longValue(), record) : null;
    }

    /** What should become of the orders, in OUT and in CHANGELOG. */
    static String totals(Arguments arguments) throws Exception {
        String bootstrap = arguments.text(0, "BOOTSTRAP");
        String planted = arguments.option("plant") == null ? "nothing" : arguments.option("plant");
        String out = arguments.text(2, "OUT");
        String changelog = arguments.text(3, "CHANGELOG");
        int outPartitions = Topics.partitions(bootstrap, out);
        int partitions = Topics.partitions(bootstrap, changelog);
        List<Order> orders = new ArrayList<>();
        Topics.read(bootstrap, arguments.text(1, "ORDERS"), arguments.patience(), record -> {
            Order order = read(record);
            if (order != null) {
                orders.add(order);
            }
        });
        switch (planted) {
            case "lose" -> orders.remove(orders.size() - 1);
            case "duplicate" -> orders.add(orders.get(orders.size() - 1));
            case "swap" -> swap(orders, (one, other) -> one.country.equals(other.country));
            case "swap-countries" -> swap(orders, (one, other) -> !one.country.equals(other.country)
                    && one.partition(partitions) == other.partition(partitions)
                    && one.partition(outPartitions) == other.partition(outPartitions));
            case "swap-streams" -> swap(orders, (one, other) -> one.partition(partitions) != other.partition(partitions)
                    && one.partition(outPartitions) == other.partition(outPartitions));
            default -> { }
        }
        var records = counted(orders, out, changelog);
        plant(planted, records, partitions);
        return Reference.write(arguments, records, planted);
    }

    private static List<ProducerRecord<byte[], byte[]>> counted(List<Order> orders, String out, String changelog) {
        Map<String, long[]> totals = new HashMap<>();
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (Order order : orders) {
            long[] total = totals.computeIfAbsent(order.country, country -> new long[2]);
            total[0]++;
            total[1] += order.amount;
            byte[] key = order.country.getBytes(StandardCharsets.UTF_8);
            byte[] value = total(total[0], total[1]);
            Iterable<Header> headers = order.from.headers();
            records.add(new ProducerRecord<>(out, null, order.from.timestamp(), key, value, headers));
            records.add(new ProducerRecord<>(changelog, key, value));
        }
        return records;
    }

    private static byte[] total(long count, long sum) {
        return ("{\"count\":" + count + ",\"sum\":" + sum + "}").getBytes(StandardCharsets.UTF_8);
    }

    /** The last two records are of one order: its output, and its change of the map. */
    private static void plant(String error, List<ProducerRecord<byte[], byte[]>> records, int partitions) {
        int change = records.size() - 1;
        ProducerRecord<byte[], byte[]> last = records.get(change);
        ProducerRecord<byte[], byte[]> output = records.get(change - 1);
        switch (error) {
            case "nothing", "aborted", "open", "lose", "duplicate", "swap", "swap-countries", "swap-streams" -> { }
            case "jump" -> {
                JsonNode total = Rules.parse(output.value());
                byte[] value = total(total.get("count").longValue() + 1, total.get("sum").longValue());
                records.set(change - 1, new ProducerRecord<>(
                        output.topic(), null, output.timestamp(), output.key(), value, output.headers()));
            }
            case "timestamp" -> records.set(change - 1, new ProducerRecord<>(
                    output.topic(), null, output.timestamp() + 1, output.key(), output.value(), output.headers()));
            case "stale" -> records.remove(change);
            case "again" -> records.add(new ProducerRecord<>(last.topic(), last.key(), last.value()));
            case "twice" -> {
                int wrong = (Topics.partitionOf(last.key(), partitions) + 1) % partitions;
                records.add(new ProducerRecord<>(last.topic(), wrong, last.key(), last.value()));
            }
            default -> throw new IllegalArgumentException("there is no error '" + error + "' to plant");
        }
    }

    /** Two orders that follow one another in their partition, and of which this is true, are counted the other way round. */
    private static void swap(List<Order> orders, BiPredicate<Order, Order> wanted) {
        Map<Integer, Integer> next = new HashMap<>();
        for (int earlier = orders.size() - 1; earlier >= 0; earlier--) {
            Order one = orders.get(earlier);
            Integer later = next.put(one.from.partition(), earlier);
            if (later != null && wanted.test(one, orders.get(later))) {
                Collections.swap(orders, earlier, later);
                return;
            }
        }
        throw new IllegalArgumentException("no two such orders follow one another: nothing to swap");
    }

    private Orders() {}
}
