//! Dead letters written back to the step that set them aside: in transactions, with how far the topics of letters have been read.
//!
//! Invariant: of letters that are read in order each is written back once, however often this ends in the middle.

use std::ffi::CString;
use std::time::{Duration, Instant};

use millstream_engine::commit::verdict::Verdict;
use millstream_engine::pipeline::Guarantee;
use millstream_engine::record::Columns;
use millstream_engine::task::letter::is_ours;

use super::client::{Clients, PROPAGATION_MAX};
use super::consumer::Commit;
use super::membership::GroupMetadata;
use super::native::{NativeConsumer, list};
use super::producer::Producer;
use super::stretch::Kept;
use crate::cluster::{AdminError, InitError, Producer as _};

/// How long it is tried to begin.
const INIT_MAX: Duration = Duration::from_secs(60);

/// Of a topic of letters: its name, a partition, and an offset.
pub type Progress<'a> = (&'a str, u32, i64);

/// The way back to one step.
#[derive(Debug)]
pub struct Replay {
    reader: NativeConsumer,
    producer: Producer,
    /// Topic, group and transactional.id have one name.
    name: CString,
}

impl Replay {
    /// Ends what an earlier one left open, first of all. Letters may have so many bytes.
    ///
    /// # Errors
    ///
    /// The brokers don't answer, or don't let it write.
    pub fn new(clients: &Clients, topic: &str, bytes_max: usize) -> Result<Self, AdminError> {
        let clients = Clients {
            guarantee: Guarantee::ExactlyOnce,
            ..clients.clone()
        };
        let mut config = clients.reader_config("read_committed");
        config.set("group.id", topic);
        let reader = NativeConsumer::new(&config).map_err(AdminError::Refused)?;
        let config = clients.producer_config(topic, bytes_max, bytes_max);
        let producer = Producer::new(&config, &[topic.to_owned()]).map_err(AdminError::Refused)?;
        let give_up = Instant::now() + INIT_MAX;
        while let Err(error) = producer.init(PROPAGATION_MAX) {
            match error {
                InitError::Again(_) | InitError::Ending(_) if Instant::now() < give_up => {}
                InitError::Again(why) | InitError::Ending(why) => {
                    return Err(AdminError::Unanswered(why));
                }
                InitError::Failed(why) | InitError::Refused(why) => {
                    return Err(AdminError::Refused(why));
                }
            }
        }
        let name = CString::new(topic).map_err(|error| AdminError::Refused(error.to_string()))?;
        Ok(Self {
            reader,
            producer,
            name,
        })
    }

    /// From which offset on letters of these places were not written back yet; none where none ever were.
    ///
    /// # Errors
    ///
    /// The brokers don't say.
    pub fn progress(&self, places: &[(&str, u32)]) -> Result<Vec<Option<i64>>, AdminError> {
        let asked = list(
            places
                .iter()
                .map(|&(topic, partition)| (topic, partition, None)),
        );
        let answered = self.reader.committed(&asked);
        answered.map_err(AdminError::Unanswered)?;
        let offsets = places.iter().map(|&(topic, partition)| {
            let partition = i32::try_from(partition).ok()?;
            let element = asked.find_partition(topic, partition)?;
            element.offset().to_raw().filter(|offset| *offset >= 0)
        });
        Ok(offsets.collect())
    }

    /// Writes letters to partitions of the step's topic, and notes how far has been read, all or nothing.
    ///
    /// # Errors
    ///
    /// It did not take effect, or nobody knows; where progress is noted, the next call of `progress` tells.
    pub fn write(
        &mut self,
        letters: &[(u32, Columns)],
        progress: &[Progress<'_>],
    ) -> Result<(), AdminError> {
        let failed = |why: String| AdminError::Unanswered(format!("not written back: {why}"));
        self.producer.begin().map_err(failed)?;
        for (partition, columns) in letters {
            let sent = self.producer.send(0, Some(*partition), &columns.record(0));
            sent.map_err(failed)?;
        }
        self.producer.flush(&|| false).map_err(failed)?;
        let progress = progress.iter();
        let commit = Commit {
            offsets: list(progress.map(|&(topic, partition, at)| (topic, partition, Some(at)))),
            group: GroupMetadata::of(&self.name),
        };
        match self.producer.commit(&commit, &|| false) {
            Verdict::Committed(_) => Ok(()),
            Verdict::Aborted(why)
            | Verdict::InDoubt(why)
            | Verdict::Fenced(why)
            | Verdict::Fatal(why) => Err(failed(why)),
        }
    }
}

/// A letter as it came to the step, without what was added to it.
pub fn original(letter: &Kept) -> Columns {
    let headers = letter.headers.iter();
    let own = headers.filter(|(name, _)| !is_ours(name));
    let own = own.map(|(name, value)| (name.as_slice(), value.as_deref()));
    let mut columns = Columns::default();
    let (key, value) = (letter.key.as_deref(), letter.value.as_deref());
    columns.push(letter.offset, letter.timestamp, key, value, own);
    columns
}
