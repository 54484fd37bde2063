package judge;

import java.util.List;
import java.util.Map;

/**
 * Says whether what Millstream left in Kafka is right. It shares no code with Millstream: it reads with Kafka's own client
 * and works out by its own rules what should be there. Its last line is the verdict: "judge: OK ..." with exit code 0,
 * "judge: WRONG ..." with 1, or "judge: ERROR ..." with 2 when it could not judge at all.
 */
public final class Judge {
    private static final String USAGE = """
            judge.sh VERB ARGS..., where VERB is

              topic BOOTSTRAP NAME PARTITIONS [config=value...]
                  creates a topic and waits until every partition has a leader
              delete BOOTSTRAP NAME
                  deletes a topic and waits until it is gone
              trim BOOTSTRAP TOPIC OFFSET
                  deletes what stands before OFFSET in partition 0, as retention would
              commit BOOTSTRAP GROUP TOPIC OFFSET
                  sets what the group, with nobody in it, has committed of partition 0
              size BOOTSTRAP TOPIC
                  says how many bytes the topic takes on disk
              generate BOOTSTRAP TOPIC COUNT IDS MALFORMED_PER_MILLE [--rate R] [--from N] [--while FILE]
                  writes the events N..N+COUNT, at most R a second, and only while FILE is there; the same arguments give the
                  same records
              orders BOOTSTRAP TOPIC COUNT CUSTOMERS MALFORMED_PER_MILLE COUNTRIES [--rate R] [--from N] [--while FILE]
                  the same for orders
              write BOOTSTRAP TOPIC FILE [--codec C] [--partition P] [--open ID]
                  writes the lines of FILE to partition 0 or P, or with P = hash to where each key belongs, compressed by C:
                  key, tab, value; \\N is null. In a transaction of ID that is left open, having aborted its last one
              edge BOOTSTRAP TOPIC
                  writes records at the edges of what Kafka can carry, some of them in an aborted transaction
              reference BOOTSTRAP EVENTS OUT MIN_AGE [--plant ERROR]
                  writes what `adults` expects, transactionally
              copy BOOTSTRAP IN OUT [--plant ERROR]
                  writes what `passthrough` expects. ERROR is one of lose, duplicate, swap, corrupt, timestamp, header,
                  partition, open (a transaction is left open); or aborted, which is no error
              adults BOOTSTRAP EVENTS OUT MIN_AGE
                  OUT holds the events of age MIN_AGE and up, names in upper case, each once, in order
              changelog BOOTSTRAP EVENTS CHANGELOG MIN_AGE PARTITIONS [--http URL,URL... --pipeline P --map M] [--sample N]
                  CHANGELOG folds to the last such event of each id; the entries (N of them) are served over HTTP
              totals BOOTSTRAP ORDERS OUT CHANGELOG [--plant ERROR]
                  writes what `counts` expects, transactionally. ERROR is one of lose, duplicate, swap (two orders of a country),
                  swap-countries (of two that share partitions), jump, timestamp (of an output), stale, twice (in the changelog),
                  open; or aborted, or swap-streams (of two countries that share the output's partition only), which are no errors
              counts BOOTSTRAP ORDERS OUT CHANGELOG PARTITIONS [--http URL,URL... --pipeline P --map M] [--sample N]
                  OUT holds for each country its orders, counted one by one, with the sum so far, those of one partition of ORDERS
                  in order where their countries share a partition of OUT, and one of as many as PARTITIONS; CHANGELOG folds to the
                  last of them, each country in the partition that it hashes to; that is what is listed over HTTP, page by page,
                  (and found by key, for N of the countries)
              set-aside BOOTSTRAP INPUT LETTERS KIND STEP [--plant ERROR]
                  writes what `letters` expects, transactionally. ERROR is one of lose, duplicate, place, swap, value, untold, open;
                  or aborted, which is no error
              letters BOOTSTRAP INPUT LETTERS KIND STEP
                  LETTERS holds the malformed records of INPUT, whose KIND is events or orders, and nothing else: each once, in order,
                  as it was, with the headers that say where it comes from and that STEP refused it
              passthrough BOOTSTRAP IN OUT
                  OUT holds the records of IN, each once, in order, key, value, timestamp and headers unchanged
              transactions BOOTSTRAP TOPIC TOPIC [--plant ERROR]
                  writes what `tokens` judges to both topics. ERROR is torn or untold
              tokens BOOTSTRAP TOPIC...
                  of all records with the same token (header millstream-token, of the fault-injected build) in these topics, all are
                  committed or none is; no record is without
              dump BOOTSTRAP TOPIC
                  prints the committed records as lines of JSON, by partition and offset

            --countries TOPIC is for reference, adults and changelog: outputs carry `country_name`, the name that this table has for
                  their country, null where it has none

            --patience S (30) is for all that read: how long to wait for something that an open transaction hides""";

    /** What is wrong with the judged topic, in one line. */
    static final class Wrong extends RuntimeException {
        private static final long serialVersionUID = 1;

        Wrong(String message) {
            super(message);
        }
    }

    interface Verb {
        /** Returns the counts for the verdict's line, or null where the output speaks for itself. */
        String run(Arguments arguments) throws Exception;
    }

    private static final Map<String, Verb> VERBS = Map.ofEntries(
            Map.entry("topic", Topics::create),
            Map.entry("delete", Topics::delete),
            Map.entry("trim", Topics::trim),
            Map.entry("commit", Topics::commit),
            Map.entry("size", Topics::size),
            Map.entry("generate", Generate::run),
            Map.entry("edge", Edge::run),
            Map.entry("reference", Reference::reference),
            Map.entry("copy", Reference::copy),
            Map.entry("adults", Adults::run),
            Map.entry("changelog", Changelog::run),
            Map.entry("orders", Orders::generate),
            Map.entry("totals", Orders::totals),
            Map.entry("counts", Counts::run),
            Map.entry("set-aside", Letters::write),
            Map.entry("letters", Letters::run),
            Map.entry("passthrough", Passthrough::run),
            Map.entry("tokens", Tokens::run),
            Map.entry("transactions", Tokens::transactions),
            Map.entry("dump", Topics::dump),
            Map.entry("write", Write::run),
            Map.entry("warm", Warm::run));

    /** A test that fails ends without waiting for whom it has started in other threads: nobody wants the answer any more. */
    private static void endWithParent() {
        ProcessHandle.current().parent().ifPresent(parent -> parent.onExit().thenRun(() -> Runtime.getRuntime().halt(1)));
    }

    public static void main(String[] args) {
        Verb verb = args.length == 0 ? null : VERBS.get(args[0]);
        if (verb == null) {
            System.err.println(USAGE);
            System.exit(2);
        }
        endWithParent();
        int code = 0;
        try {
            String counts = verb.run(new Arguments(List.of(args).subList(1, args.length)));
            if (counts != null) {
                System.out.println("judge: OK " + args[0] + " " + counts);
            }
        } catch (Wrong wrong) {
            System.out.println("judge: WRONG " + args[0] + " " + wrong.getMessage());
            code = 1;
        } catch (Exception error) {
            error.printStackTrace();
            System.out.println("judge: ERROR " + args[0] + " " + error);
            code = 2;
        }
        System.out.flush();
        // An archive of classes (see Warm) is written by an orderly exit only.
        if (code == 0 && args[0].equals("warm")) {
            return;
        }
        // Client threads of a broken connection must not keep the process.
        Runtime.getRuntime().halt(code);
    }

    /** Nothing follows from nothing: an empty input acquits nobody. */
    static void requireInput(boolean some) {
        if (!some) {
            throw new IllegalStateException("the input has no record that should come out: nothing to judge");
        }
    }

    private Judge() {}
}
