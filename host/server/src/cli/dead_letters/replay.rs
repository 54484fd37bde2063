//! `millstream dead-letters replay`: letters written to the topic by which their step takes records again, where they entered it first.

use millstream_engine::pipeline::Pipeline;
use millstream_engine::record::Columns;
use millstream_engine::task::letter;

use super::{Letters, Place, told};
use crate::cluster::TopicFacts;
use crate::kafka::{Kept, Replay, Stretch, original};
use crate::supervisor::Failure;

/// Letters in a transaction.
const AT_ONCE: usize = 1000;

/// A step's way back.
struct Way<'a> {
    step: &'a str,
    topic: &'a str,
    facts: &'a TopicFacts,
}

/// What became of the letters that were looked at.
#[derive(Debug, Default)]
struct Counts {
    written: u64,
    /// They don't say which partition their records are of, or one that there isn't.
    homeless: u64,
}

impl Letters {
    pub(super) fn replay(&self, step: Option<&str>, places: &[Place]) -> Result<(), Failure> {
        let ways = self.ways(step)?;
        if !places.is_empty() {
            return self.replay_some(&ways, places);
        }
        for way in &ways {
            let counts = self.replay_all(way)?;
            let (step, written) = (way.step, counts.written);
            println!("{written} dead letters of step \"{step}\" come to it again");
            tell_homeless(counts.homeless);
        }
        Ok(())
    }

    /// The steps that take letters again.
    fn ways(&self, wanted: Option<&str>) -> Result<Vec<Way<'_>>, Failure> {
        let Pipeline { name, steps, .. } = &self.pipeline;
        let mut ways = Vec::new();
        let is_wanted = |step: &str| wanted.is_none_or(|wanted| wanted == step);
        for step in steps.iter().filter(|step| is_wanted(&step.name)) {
            let topic = Pipeline::replay_topic(name, &step.name);
            let topics = self.pipeline.topics.iter();
            let declared = topics.map(|known| known.topic.as_str());
            let Some(topic) = declared.into_iter().find(|known| *known == topic) else {
                continue;
            };
            let Some(facts) = self.replays.get(topic) else {
                let why = format!(
                    "topic \"{topic}\", by which dead letters come back to step \"{}\", does not exist: the pipeline makes it as it starts",
                    step.name
                );
                return Err(Failure::CommandLine(why));
            };
            ways.push(Way {
                step: &step.name,
                topic,
                facts,
            });
        }
        if ways.is_empty() {
            let which = wanted.map_or("no step takes".into(), |step| {
                format!("step \"{step}\" doesn't take")
            });
            let why = format!(
                "{which} dead letters again: `replay = true` in a step's table has it do so"
            );
            return Err(Failure::CommandLine(why));
        }
        Ok(ways)
    }

    /// All since the last time.
    fn replay_all(&self, way: &Way<'_>) -> Result<Counts, Failure> {
        let mut replay = Replay::new(&self.clients, way.topic, way.facts.record_bytes_max)?;
        let mut stretch = Stretch::new(&self.clients)?;
        let all = self.topics.iter().flat_map(|(topic, partitions)| {
            (0..*partitions).map(move |partition| (topic.as_str(), partition))
        });
        let all: Vec<(&str, u32)> = all.collect();
        let mut places = Vec::new();
        for (&(topic, partition), done) in all.iter().zip(replay.progress(&all)?) {
            let (start, end) = stretch.bounds(topic, partition)?;
            places.push((topic, partition, start.max(done.unwrap_or(start)), end));
        }
        let (mut counts, mut letters) = (Counts::default(), Vec::new());
        let mut progress: Vec<(&str, u32, i64)> = Vec::new();
        let mut result = Ok(());
        stretch.read(&places, |letter| {
            if result.is_err() {
                return;
            }
            let place = all.iter().find(|(topic, partition)| {
                *topic == letter.topic && *partition == letter.partition
            });
            let Some(&(topic, partition)) = place else {
                return;
            };
            progress.retain(|(known, number, _)| (*known, *number) != (topic, partition));
            progress.push((topic, partition, letter.offset + 1));
            if told(&letter, letter::STEP) == way.step {
                match way.back(&letter) {
                    Some(back) => letters.push(back),
                    None => counts.homeless += 1,
                }
            }
            if letters.len() >= AT_ONCE {
                result = replay.write(&letters, &progress);
                counts.written += letters.len() as u64;
                letters.clear();
            }
        })?;
        result?;
        if !progress.is_empty() {
            replay.write(&letters, &progress)?;
            counts.written += letters.len() as u64;
        }
        Ok(counts)
    }

    /// Those that are named, in one transaction for each step.
    fn replay_some(&self, ways: &[Way<'_>], places: &[Place]) -> Result<(), Failure> {
        let mut stretch = Stretch::new(&self.clients)?;
        let mut wanted = Vec::new();
        for place in places {
            let letter = self.letter(&mut stretch, place)?;
            let step = told(&letter, letter::STEP);
            let way = ways.iter().position(|way| way.step == step);
            let back = way.and_then(|way| Some((way, ways[way].back(&letter)?)));
            wanted.push(back.ok_or_else(|| {
                let Place {
                    topic,
                    partition,
                    offset,
                } = place;
                let why = format!(
                    "{topic}[{partition}]@{offset} is of step {step}, which does not take it again; nothing was written"
                );
                Failure::CommandLine(why)
            })?);
        }
        for (at, way) in ways.iter().enumerate() {
            let letters = wanted.extract_if(.., |(of, _)| *of == at);
            let letters: Vec<(u32, Columns)> = letters.map(|(_, back)| back).collect();
            if letters.is_empty() {
                continue;
            }
            let mut replay = Replay::new(&self.clients, way.topic, way.facts.record_bytes_max)?;
            replay.write(&letters, &[])?;
            let (count, step) = (letters.len(), way.step);
            println!("{count} dead letters of step \"{step}\" come to it again");
        }
        Ok(())
    }
}

impl Way<'_> {
    /// A letter's record, and the partition that it was in.
    fn back(&self, letter: &Kept) -> Option<(u32, Columns)> {
        let partition: u32 = told(letter, letter::PARTITION).parse().ok()?;
        (partition < self.facts.partitions).then(|| (partition, original(letter)))
    }
}

fn tell_homeless(count: u64) {
    if count > 0 {
        println!(
            "{count} more don't say which partition they are of, or one that there isn't: they are left where they are"
        );
    }
}
