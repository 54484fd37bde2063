//! What a script can say. A partition is written `topic/number`; `null` stands for no key or no value; times are milliseconds.
//! Producers that are no longer spoken of have died: they end nothing.

/// One line of a script. Positional arguments come in the order of the fields; the others are written `name=value`.
#[derive(Debug, goldenscript::Command)]
pub enum Command {
    /// `topic events partitions=2 cleanup=compact bytes=1000`: creates a topic, of one partition unless it says more; `bytes` is
    /// the largest batch.
    Topic {
        name: String,
        #[arg(key)]
        partitions: Option<u32>,
        #[arg(key)]
        cleanup: Option<String>,
        #[arg(key)]
        bytes: Option<usize>,
    },
    /// `delete events`: deletes a topic.
    Delete {
        name: String,
    },
    /// `partitions events`: how many a topic has.
    Partitions {
        name: String,
    },
    /// `truncate events/0 5`: deletes the records before offset 5.
    Truncate {
        place: String,
        before: i64,
    },
    /// `compact events/0`: compacts what is stable of a partition of a compacted topic. Kafka compacts whole segments, and never the one
    /// that it writes to. So the last record, or the first open transaction's first one, has to be of a later time than those before it:
    /// it begins a segment. A last record that does is left out, and has to have a key of its own.
    Compact {
        place: String,
    },

    // Producers.
    //
    /// `producer one id=x timeout=1000`: initialises a producer. Without an id it is idempotent only.
    Producer {
        name: String,
        #[arg(key)]
        id: Option<String>,
        #[arg(key)]
        timeout: Option<i64>,
    },
    /// `send one events/0 a=1 b=null`: sends a batch, in a transaction if the producer has an id. `nobody` is a producer
    /// without idempotence.
    Send {
        producer: String,
        place: String,
        records: Vec<(String, String)>,
    },
    /// `resend one events/0 sequence=0 count=2`: a batch of that many records, as if it had come late, twice or too early.
    Resend {
        producer: String,
        place: String,
        #[arg(key)]
        sequence: i32,
        #[arg(key)]
        count: Option<u32>,
    },
    /// `record one events/0 key=a value=1 time=5 headers="x=1 y=null" bytes=2000`: one record in all detail; with `bytes` its value
    /// has that size.
    Record {
        producer: String,
        place: String,
        #[arg(key)]
        key: Option<String>,
        #[arg(key)]
        value: Option<String>,
        #[arg(key)]
        time: Option<i64>,
        #[arg(key)]
        headers: Option<String>,
        #[arg(key)]
        bytes: Option<usize>,
    },
    /// `offsets one group events/0=5 events/1="6 with metadata" as=m`: offsets into the transaction, in the name of that member, or
    /// of nobody.
    Offsets {
        producer: String,
        group: String,
        #[arg(key = "as")]
        member: Option<String>,
        offsets: Vec<(String, String)>,
    },
    /// Ends the transaction, or whichever is open when the request arrives.
    Commit {
        producer: String,
    },
    /// Likewise.
    Abort {
        producer: String,
    },

    // Consumers.
    //
    /// `read events/0 from=3`: what a read_committed consumer sees, and the position it comes to.
    Read {
        place: String,
        #[arg(key, optional)]
        from: i64,
    },
    /// Likewise, of a read_uncommitted one.
    Peek {
        place: String,
        #[arg(key, optional)]
        from: i64,
    },
    /// `marks events/0`: log start, last stable offset, high watermark.
    Marks {
        place: String,
    },
    /// `store group events/0=5 events/1="6 with metadata" as=m`: commits offsets without a transaction. `metadata=100` makes it 100
    /// bytes.
    Store {
        group: String,
        #[arg(key = "as")]
        member: Option<String>,
        #[arg(key)]
        metadata: Option<usize>,
        offsets: Vec<(String, String)>,
    },
    /// `committed group events/0 events/1`: committed offsets and metadata.
    Committed {
        group: String,
        places: Vec<String>,
    },
    /// Likewise, but only if no transaction is about to change them.
    Stable {
        group: String,
        places: Vec<String>,
    },

    // Members of groups.
    //
    /// `member m group events instance=i session=1000 rebalance=1000`: somebody new, who asks to join.
    Member {
        name: String,
        group: String,
        topics: Vec<String>,
        #[arg(key)]
        instance: Option<String>,
        #[arg(key)]
        session: Option<i64>,
        #[arg(key)]
        rebalance: Option<i64>,
    },
    /// `join m n`: members ask to join again.
    Join {
        members: Vec<String>,
    },
    /// `joined m n`: what the members' joins came to, once everybody has asked.
    Joined {
        members: Vec<String>,
    },
    Heartbeat {
        member: String,
    },
    Leave {
        member: String,
    },
    /// `remove group i`: an operator removes the static member of that instance id.
    Remove {
        group: String,
        instance: String,
    },
    /// The member falls silent. What it still says is said by a zombie.
    Kill {
        member: String,
    },

    // The world.
    //
    /// `hold events/0 group`: from now on no marker of a transaction gets to that partition, nor to that group's offsets. What else
    /// there is to be written is written before a command is done.
    Hold {
        places: Vec<String>,
    },
    /// `release events/0 group`: they get there.
    Release {
        places: Vec<String>,
    },
    /// `wait 1000`: time passes. Members that were not killed send heartbeats, unless they wait for others to join.
    Wait {
        ms: u32,
    },
    /// The broker is killed and started again.
    Restart,
}
