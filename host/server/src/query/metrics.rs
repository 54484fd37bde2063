//! `GET /metrics`: what the process counts and measures, in the OpenMetrics text format, which Prometheus reads. Every name and label
//! stands in this file, and in docs/metrics.md for people.
//!
//! Counters of records are of committed epochs, so that a replay counts nothing twice; those of steps count calls, replays included.

mod families;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use millstream_engine::pipeline::MapId;
use millstream_engine::state::restore::Phase;
use prometheus_client::registry::Registry;

use self::families::{Families, Labels};
use super::{Hosted, Refusal, Served, Standing};
use crate::plugin_limits::Limit;
use crate::snapshots::MapCounts;
use crate::status::{StepMeter, WorkerStatus};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub async fn get(State(hosted): State<Hosted>) -> Result<Response, Refusal> {
    let mut families = Families::default();
    for (name, standing) in hosted.all() {
        families.pipeline = name.into();
        tell_standing(&standing, &mut families);
        if let Standing::Running(served) = standing {
            Scrape::of(&served).tell(&mut families);
        }
    }
    let mut registry = Registry::with_prefix("millstream");
    registry.register_collector(Box::new(families));
    let mut text = String::new();
    let encoded = prometheus_client::encoding::text::encode(&mut text, &registry);
    encoded.map_err(|_| {
        let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
        Refusal::new(status, "the metrics can't be written")
    })?;
    Ok(([("content-type", CONTENT_TYPE)], text).into_response())
}

fn tell_standing(standing: &Standing, out: &mut Families) {
    let is_running = u64::from(matches!(standing, Standing::Running(_)));
    let help =
        "Whether the pipeline runs: 0 before it does, and once it has ended while others go on.";
    out.gauges("up", help, &[(Vec::new(), is_running)]);
}

/// What is shown of a pipeline, as of one moment.
#[derive(Debug)]
struct Scrape {
    build: Labels,
    workers: Vec<WorkerStatus>,
    steps: Vec<String>,
    sinks: Vec<String>,
    topics: Vec<String>,
    maps: Vec<MapFigures>,
    memory_limit: u64,
    routed: [(&'static str, u64); 3],
    group_looks: u64,
}

#[derive(Debug, Default)]
struct MapFigures {
    name: String,
    partitions: u64,
    standbys: u64,
    restoring: u64,
    offsets_left: u64,
    entries: u64,
    bytes: u64,
    memory: u64,
    snapshots: SnapshotFigures,
}

#[derive(Debug, Default)]
struct SnapshotFigures {
    written: u64,
    failed: u64,
    refused: u64,
    restored: u64,
    bytes: u64,
    seconds: f64,
}

impl SnapshotFigures {
    fn of(counts: &MapCounts) -> Self {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let took = Duration::from_millis(load(&counts.millis));
        Self {
            written: load(&counts.written),
            failed: load(&counts.failed),
            refused: load(&counts.refused),
            restored: load(&counts.restored),
            bytes: load(&counts.bytes),
            seconds: took.as_secs_f64(),
        }
    }
}

impl Scrape {
    fn of(served: &Served) -> Self {
        let pipeline = &served.pipeline;
        let status = |worker: &crate::status::SharedStatus| {
            worker.lock().expect("nobody panics with it held").clone()
        };
        let mut maps: Vec<MapFigures> = Vec::new();
        let named = pipeline
            .maps
            .iter()
            .zip(served.snapshots.iter())
            .enumerate();
        maps.extend(named.map(|(id, (map, counts))| MapFigures {
            name: map.name.clone(),
            standbys: served.standbys.count(MapId(id)) as u64,
            snapshots: SnapshotFigures::of(counts),
            ..MapFigures::default()
        }));
        for ((map, _), partition) in served.directory.all() {
            let figures = &mut maps[map.0];
            let partition = partition.read().expect("nobody panics with it held");
            figures.partitions += 1;
            if let Phase::Restoring { end } = partition.phase() {
                figures.restoring += 1;
                figures.offsets_left += u64::try_from(end - partition.position()).unwrap_or(0);
            }
            figures.entries += partition.contents().len() as u64;
            let contents = partition.contents();
            figures.bytes += contents.bytes() as u64;
            let indexes = contents.indexes().iter();
            let indexes = indexes.map(|index| contents.index_footprint(index));
            figures.memory += (contents.footprint() + indexes.sum::<usize>()) as u64;
        }
        let meter = &served.routing.meter;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            routed: [
                ("answered", count(&meter.answered)),
                ("unready", count(&meter.unready)),
                ("failed", count(&meter.failed)),
            ],
            group_looks: count(&meter.looks),
            build: vec![
                ("version", env!("CARGO_PKG_VERSION").into()),
                ("revision", served.plugins.revision()),
            ],
            workers: served.workers.iter().map(status).collect(),
            steps: pipeline
                .steps
                .iter()
                .map(|step| step.name.clone())
                .collect(),
            sinks: pipeline
                .sinks
                .iter()
                .map(|sink| sink.name.clone())
                .collect(),
            topics: pipeline.topics.iter().map(|at| at.topic.clone()).collect(),
            maps,
            memory_limit: served.memory.budget.limit() as u64,
        }
    }

    fn sum(&self, of: impl Fn(&WorkerStatus) -> u64) -> Vec<(Labels, u64)> {
        vec![(Vec::new(), self.workers.iter().map(of).sum())]
    }

    /// Of all workers together.
    fn by_step<T: std::iter::Sum>(&self, of: impl Fn(&StepMeter) -> T) -> Vec<(Labels, T)> {
        let steps = self.steps.iter().enumerate();
        let summed = |number| self.meters(number).map(&of).sum();
        steps
            .map(|(number, name)| (vec![("step", name.clone())], summed(number)))
            .collect()
    }

    /// Of the worker where it is most.
    fn most_by_step<T: Ord + Default>(&self, of: impl Fn(&StepMeter) -> T) -> Vec<(Labels, T)> {
        let steps = self.steps.iter().enumerate();
        let most = |number| self.meters(number).map(&of).max().unwrap_or_default();
        steps
            .map(|(number, name)| (vec![("step", name.clone())], most(number)))
            .collect()
    }

    /// Of a step, in all workers that have said something.
    fn meters(&self, number: usize) -> impl Iterator<Item = &StepMeter> {
        let workers = self.workers.iter();
        workers.filter_map(move |worker| worker.steps.get(number))
    }

    fn by_sink(
        &self,
        of: impl Fn(&millstream_engine::task::run::Sent) -> u64,
    ) -> Vec<(Labels, u64)> {
        let of_sink = |number: usize| {
            let sent = self
                .workers
                .iter()
                .filter_map(|worker| worker.tally.sent.get(number));
            sent.map(&of).sum()
        };
        let sinks = self.sinks.iter().enumerate();
        sinks
            .map(|(number, name)| (vec![("sink", name.clone())], of_sink(number)))
            .collect()
    }

    fn by_map<T>(&self, of: impl Fn(&MapFigures) -> T) -> Vec<(Labels, T)> {
        let maps = self.maps.iter();
        maps.map(|map| (vec![("map", map.name.clone())], of(map)))
            .collect()
    }

    fn failures(&self) -> Vec<(Labels, u64)> {
        let mut sums = std::collections::BTreeMap::<(&str, &str), u64>::new();
        for worker in &self.workers {
            for ((at, kind), count) in &worker.tally.failures {
                *sums.entry((at, kind.word())).or_default() += count;
            }
        }
        let label = |((at, reason), count): ((&str, &str), u64)| {
            (
                vec![("at", at.to_owned()), ("reason", reason.to_owned())],
                count,
            )
        };
        sums.into_iter().map(label).collect()
    }

    /// Records between what is committed and the end of each partition, as far as the consumer has heard of it.
    fn lag(&self) -> Vec<(Labels, u64)> {
        let held = self.workers.iter().flat_map(|worker| {
            let end = |at| worker.ends.get(at).copied();
            worker
                .held
                .iter()
                .filter_map(move |(at, committed)| Some((at, end(at)? - committed)))
        });
        let label = |(at, lag): (&millstream_engine::task::TopicPartition, i64)| {
            let labels = vec![
                ("topic", self.topics[at.topic.0].clone()),
                ("partition", at.partition.to_string()),
            ];
            (labels, u64::try_from(lag).unwrap_or(0))
        };
        held.map(label).collect()
    }
}

impl Scrape {
    fn tell(&self, out: &mut Families) {
        let build = vec![(self.build.clone(), 1)];
        out.gauges(
            "build",
            "Version of the program, revision of pipeline and plugins.",
            &build,
        );
        let help = "Records consumed and dealt with.";
        out.counters(
            "source_records",
            help,
            &self.sum(|worker| worker.tally.records),
        );
        let help = "Bytes of their keys, values and headers.";
        out.counters("source_bytes", help, &self.sum(|worker| worker.tally.bytes));
        let help = "Offsets between what is committed and the end of the partition.";
        out.gauges("source_lag", help, &self.lag());
        self.tell_steps(out);
        let help = "Records written to topics, or put into maps.";
        out.counters("sink_records", help, &self.by_sink(|sent| sent.records));
        let help = "Bytes of their keys, values and headers.";
        out.counters("sink_bytes", help, &self.by_sink(|sent| sent.bytes));
        let help = "Records left out, set aside, or stopped at: what the plugin refused, calls that failed, null keys, records too large.";
        out.counters("failed_records", help, &self.failures());
        self.tell_epochs(out);
        self.tell_maps(out);
        self.tell_routing(out);
    }
}

impl Scrape {
    fn tell_steps(&self, out: &mut Families) {
        let help = "Records handed to the plugin.";
        out.counters(
            "step_input_records",
            help,
            &self.by_step(|meter| meter.records_in),
        );
        let help = "Bytes of their keys, values and headers.";
        out.counters(
            "step_input_bytes",
            help,
            &self.by_step(|meter| meter.bytes_in),
        );
        let help = "Records that the plugin put out.";
        out.counters(
            "step_output_records",
            help,
            &self.by_step(|meter| meter.records_out),
        );
        let help = "Bytes of keys, values and headers that the plugin wrote itself; what records inherit is not counted.";
        out.counters(
            "step_output_bytes",
            help,
            &self.by_step(|meter| meter.bytes_out),
        );
        let help = "Calls of the plugin, one a batch.";
        out.counters("step_calls", help, &self.by_step(|meter| meter.calls));
        let help = "Calls that failed as a whole: a trap, a missed deadline, a malformed answer.";
        out.counters(
            "step_failed_calls",
            help,
            &self.by_step(|meter| meter.failed_calls),
        );
        let help = "Time spent in the plugin.";
        out.seconds(
            "step_plugin_seconds",
            help,
            &self.by_step(|meter| meter.time.as_secs_f64()),
        );
        let help = "Memory that the plugin's instances have, all workers together.";
        out.gauges(
            "step_memory_bytes",
            help,
            &self.by_step(|meter| meter.memory),
        );
        let help = "Memory that they may have.";
        out.gauges(
            "step_memory_limit_bytes",
            help,
            &self.by_step(|meter| meter.limits.memory as u64),
        );
        self.tell_limits(out);
    }

    /// What plugins took of what they may, and how often they wanted more.
    fn tell_limits(&self, out: &mut Families) {
        let help = "Instances that were replaced between two batches, because they had more memory than their mark.";
        out.counters(
            "step_replaced_instances",
            help,
            &self.by_step(|meter| meter.replaced),
        );
        type Most = fn(&StepMeter) -> u64;
        let help = "The longest call since the start.";
        let longest = self.most_by_step(|meter| meter.longest);
        out.durations("step_longest_call_seconds", help, &longest);
        let help = "How long a call may take.";
        let allowed = self.most_by_step(|meter| meter.limits.time);
        out.durations("step_call_limit_seconds", help, &allowed);
        let gauges: [(&str, &str, Most); 4] = [
            (
                "step_largest_answer_bytes",
                "What the plugin wrote itself in the largest answer since the start.",
                |meter| meter.most_bytes,
            ),
            (
                "step_answer_limit_bytes",
                "What it may hand to the host in a call.",
                |meter| meter.limits.output_bytes as u64,
            ),
            (
                "step_largest_answer_records",
                "Records of the answer that had most since the start.",
                |meter| meter.most_records,
            ),
            (
                "step_answer_limit_records",
                "Records that an answer may have.",
                |meter| meter.limits.output_records as u64,
            ),
        ];
        for (name, help, most) in gauges {
            out.gauges(name, help, &self.most_by_step(most));
        }
        let help = "Lines that the plugin logged.";
        out.counters(
            "step_log_lines",
            help,
            &self.by_step(|meter| meter.log_lines),
        );
        let help = "Lines that it may log a second, all workers together.";
        let allowed = self.by_step(|meter| u64::from(meter.limits.log_lines));
        out.gauges("step_log_lines_limit", help, &allowed);
        let help =
            "How often the plugin ran into one of its limits; for log-lines, the lines left out.";
        out.counters("step_limit_hits", help, &self.hits());
    }

    fn hits(&self) -> Vec<(Labels, u64)> {
        let hits = |meter: &StepMeter, limit| match limit {
            Limit::LogLines => meter.log_lines_left_out,
            limit => meter.hits.of(limit),
        };
        let mut all = Vec::new();
        for limit in Limit::ALL {
            let by_step = self.by_step(|meter| hits(meter, limit));
            all.extend(by_step.into_iter().map(|(mut labels, count)| {
                labels.push(("limit", limit.key().to_owned()));
                (labels, count)
            }));
        }
        all
    }

    fn tell_epochs(&self, out: &mut Families) {
        type Count = fn(&WorkerStatus) -> u64;
        let outcomes: [(&str, Count); 3] = [
            ("committed", |worker| worker.tally.committed),
            ("aborted", |worker| worker.tally.aborted),
            ("in_doubt", |worker| worker.tally.in_doubt),
        ];
        let epochs = outcomes.map(|(outcome, of)| {
            let count = self.workers.iter().map(of).sum();
            (vec![("outcome", outcome.to_owned())], count)
        });
        let help = "Epochs by outcome; those that were in doubt count as committed or aborted too.";
        out.counters("epochs", help, &epochs);
        let help = "Time from closing an epoch to its commit.";
        let mut commits = crate::status::Commits::default();
        self.workers
            .iter()
            .for_each(|worker| commits.add(&worker.commits));
        out.histogram("commit_seconds", help, &commits);
        let stopped = self.sum(|worker| worker.stopped.len() as u64);
        out.gauges(
            "stopped_tasks",
            "Tasks that a record has stopped.",
            &stopped,
        );
        let retrying = self.sum(|worker| {
            let retrying = worker.retrying.as_ref();
            retrying.map_or(0, |retrying| u64::from(retrying.epochs))
        });
        let help = "Epochs that failed since the last one that was committed.";
        out.gauges("retried_epochs", help, &retrying);
    }

    fn tell_maps(&self, out: &mut Families) {
        let help = "Partitions of the map held here.";
        out.gauges("map_partitions", help, &self.by_map(|map| map.partitions));
        let help = "Partitions of the map that a copy is kept of here, for when their owner goes.";
        out.gauges(
            "map_standby_partitions",
            help,
            &self.by_map(|map| map.standbys),
        );
        let help = "Of the partitions held, how many are being restored.";
        out.gauges(
            "map_restoring_partitions",
            help,
            &self.by_map(|map| map.restoring),
        );
        let help = "Changelog offsets to be read before all of them are restored.";
        out.gauges(
            "map_restore_offsets_left",
            help,
            &self.by_map(|map| map.offsets_left),
        );
        let help = "Entries held here.";
        out.gauges("map_entries", help, &self.by_map(|map| map.entries));
        let help = "Bytes of their keys and values.";
        out.gauges("map_bytes", help, &self.by_map(|map| map.bytes));
        let help = "Memory that they take, indexes included.";
        out.gauges("map_memory_bytes", help, &self.by_map(|map| map.memory));
        let help = "Memory that all maps may take.";
        let limit = vec![(Vec::new(), self.memory_limit)];
        out.gauges("maps_memory_limit_bytes", help, &limit);
        self.tell_snapshots(out);
    }

    fn tell_snapshots(&self, out: &mut Families) {
        type Count = fn(&SnapshotFigures) -> u64;
        let counters: [(&str, &str, Count); 4] = [
            (
                "snapshots_written",
                "Snapshots of partitions written.",
                |of| of.written,
            ),
            (
                "snapshots_failed",
                "Snapshots that could not be written.",
                |of| of.failed,
            ),
            ("snapshots_refused", "Files not used at a restore.", |of| {
                of.refused
            }),
            (
                "snapshots_restored_entries",
                "Entries restored from snapshots.",
                |of| of.restored,
            ),
        ];
        for (name, help, of) in counters {
            out.counters(name, help, &self.by_map(|map| of(&map.snapshots)));
        }
        let help = "Bytes of the last snapshot written.";
        let bytes = self.by_map(|map| map.snapshots.bytes);
        out.gauges("snapshot_bytes", help, &bytes);
        let help = "How long the last snapshot took to write, with its rests.";
        let seconds = self.by_map(|map| map.snapshots.seconds);
        out.decimals("snapshot_write_seconds", help, &seconds);
    }
}

impl Scrape {
    fn tell_routing(&self, out: &mut Families) {
        let routed = self
            .routed
            .map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count));
        let help = "Questions to other instances about partitions that they hold.";
        out.counters("routed_queries", help, &routed);
        let help = "How often the brokers were asked who holds what.";
        let looks = vec![(Vec::new(), self.group_looks)];
        out.counters("group_looks", help, &looks);
    }
}
