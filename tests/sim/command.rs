//! What a script can say. A partition is written `topic/number`; `null` stands for no key or no value; times are milliseconds.

/// One line of a script. Positional arguments come in the order of the fields; the others are written `name=value`.
#[derive(Debug, goldenscript::Command)]
pub enum Command {
    // The pipeline, before anything else.
    //
    /// `pipeline interval=100 maps=4`: settings that differ from the usual ones. `maps` is the changelogs' partition count.
    Pipeline {
        #[arg(key)]
        interval: Option<u64>,
        #[arg(key)]
        maps: Option<u32>,
    },
    /// `source events clicks views`: a source and its topics.
    Source {
        name: String,
        topics: Vec<String>,
    },
    /// `step parse events ports="adults minors" on-error=skip takes=2`: a step and its inputs. Its plugin passes everything on,
    /// unless a rule says otherwise, and traps on more than `takes` records at once. `lookups="countries"` names maps that it may
    /// read, `state="totals"` those that it keeps.
    Step {
        name: String,
        inputs: Vec<String>,
        #[arg(key)]
        ports: Option<String>,
        #[arg(key = "on-error")]
        on_error: Option<String>,
        #[arg(key)]
        takes: Option<usize>,
        #[arg(key)]
        lookups: Option<String>,
        #[arg(key)]
        state: Option<String>,
    },
    /// `table countries replicated`: a map made from a topic of its name.
    Table {
        name: String,
        replicated: Option<String>,
    },
    /// `rule parse bad fail="not JSON"`: what a step makes of the records with this value (`any`: of those without a rule). Each
    /// rule emits a record, unless it says `drop`, `fail`, `trap` (the call), `host` (the host can't call), `restoring` (a table is), `overdue` (failed calls
    /// took too long) or `wrong` (the answer makes no sense: `reversed`, `beyond`, `port`, `short`, `both`). `count=totals` counts the records of its key in that state. `{key}`, `{value}`, `{offset}`,
    /// `{input}`, `{times}` and `{count}` are filled in.
    Rule {
        step: String,
        value_is: String,
        drop: Option<String>,
        #[arg(key)]
        port: Option<String>,
        #[arg(key)]
        key: Option<String>,
        #[arg(key)]
        value: Option<String>,
        #[arg(key)]
        time: Option<i64>,
        #[arg(key)]
        headers: Option<String>,
        #[arg(key)]
        times: Option<u32>,
        #[arg(key)]
        count: Option<String>,
        #[arg(key)]
        fail: Option<String>,
        #[arg(key)]
        trap: Option<String>,
        #[arg(key)]
        host: Option<String>,
        #[arg(key)]
        restoring: Option<String>,
        #[arg(key)]
        overdue: Option<String>,
        #[arg(key)]
        wrong: Option<String>,
    },
    /// `sink out parse parse.adults on-error=skip bytes=500`: a topic of the sink's name, or with `map=users` a map, and the
    /// topic's largest record.
    Sink {
        name: String,
        inputs: Vec<String>,
        #[arg(key)]
        map: Option<String>,
        #[arg(key = "on-error")]
        on_error: Option<String>,
        #[arg(key)]
        bytes: Option<usize>,
    },

    // What happens.
    //
    /// `assigned events/0 events/1`
    Assigned {
        #[arg(optional)]
        places: Vec<String>,
    },
    /// `offsets events/0=10 events/1=5@2 clicks/1=7@other`: the stable committed offsets, with the token of the transaction that
    /// committed them: this worker's number 2, or another worker's.
    Offsets(#[arg(key, many, optional)] Vec<(String, String)>),
    /// `take events/0=10`: `assigned` and `offsets` in one.
    Take(Vec<(String, String)>),
    Revoked,
    Lost,
    Broken {
        why: String,
    },
    /// `verdict committed`, `verdict committed sends=several`, `verdict in-doubt "no answer"`, `aborted`, `fenced`, `fatal`.
    Verdict {
        verdict: String,
        why: Option<String>,
        #[arg(key)]
        sends: Option<String>,
    },
    Replaced,
    /// `unreadable events/0 "gone by retention"`: what comes next of this partition can't be had.
    Unreadable {
        place: String,
        why: String,
    },
    /// `unsettled events/0`: something went wrong there; until the next record the consumer's position says nothing.
    Unsettled {
        place: String,
    },
    /// `tick 100`: the clock shows 100 ms.
    Tick {
        now: u64,
    },
    /// `tables live`, or `tables restoring`.
    Tables {
        are: String,
    },
    Stop,
    /// `refuse out "queue full" after=2`: the output takes two more records for this sink, then none.
    Refuse {
        sink: String,
        why: String,
        #[arg(key, optional)]
        after: u32,
    },
    /// `accept out`: it takes records again.
    Accept {
        sink: String,
    },

    // Records.
    //
    /// `records events/0 10 a=1 b=2`: consumes records of offsets 10 and 11, with their offset as time; full queues are run.
    Records {
        place: String,
        offset: i64,
        records: Vec<(String, String)>,
    },
    /// `record events/0 10 key=a value=1 time=5 headers="x=1 y=null"`
    Record {
        place: String,
        offset: i64,
        #[arg(key)]
        key: Option<String>,
        #[arg(key)]
        value: Option<String>,
        #[arg(key)]
        time: Option<i64>,
        #[arg(key)]
        headers: Option<String>,
    },
    /// `flood events/0 10 count=70 bytes=1000000`: records of the keys 10, 11, … with values of that size.
    Flood {
        place: String,
        offset: i64,
        #[arg(key)]
        count: i64,
        #[arg(key)]
        bytes: usize,
    },
    /// Runs what is queued, in the open transaction or a new one. `[calls]` shows the plugin calls, `[quiet]` only what failed.
    Run,
    /// `commit events/0=15`: what the commit under way covers, given the consumer's positions.
    Commit(#[arg(key, many, optional)] Vec<(String, String)>),

    // What there is to see.
    //
    /// Partitions held, with their committed offsets.
    Held,
    /// Stopped tasks, and the partitions that need not be consumed.
    Stopped,
    Tally,
    /// Whether a transaction is open, and whether it is due.
    Epoch,
}
