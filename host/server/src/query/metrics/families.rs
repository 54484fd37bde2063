//! Families of metrics, put together from what each pipeline of the process has to say: in the text a family stands once.

use std::fmt::Error;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::status::Commits;

pub type Labels = Vec<(&'static str, String)>;

/// A value, as its family has it.
#[derive(Debug)]
enum Value {
    Counter(u64),
    Seconds(f64),
    Gauge(i64),
    Decimal(f64),
    Histogram(Commits),
}

impl Value {
    fn write(&self, metric: &mut MetricEncoder<'_>) -> Result<(), Error> {
        match self {
            Self::Counter(value) => metric.encode_counter::<NoLabelSet, u64, u64>(value, None),
            Self::Seconds(value) => metric.encode_counter::<NoLabelSet, f64, u64>(value, None),
            Self::Gauge(value) => metric.encode_gauge(value),
            Self::Decimal(value) => metric.encode_gauge(value),
            Self::Histogram(commits) => {
                let buckets: Vec<(f64, u64)> = commits.buckets().collect();
                let (seconds, count) = (commits.seconds(), commits.count());
                metric.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
            }
        }
    }
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    rows: Vec<(Labels, Value)>,
}

/// What all pipelines of the process have to say, by name: a family stands in the text once.
#[derive(Debug, Default)]
pub struct Families {
    all: Vec<Family>,
    /// Who speaks.
    pub pipeline: String,
}

impl Families {
    fn add<T>(
        &mut self,
        (name, help, kind): (&'static str, &'static str, MetricType),
        rows: &[(Labels, T)],
        value: impl Fn(&T) -> Value,
    ) {
        let known = self.all.iter().position(|family| family.name == name);
        let at = known.unwrap_or_else(|| {
            self.all.push(Family {
                name,
                help,
                kind,
                rows: Vec::new(),
            });
            self.all.len() - 1
        });
        for (labels, row) in rows {
            let mut all = vec![("pipeline", self.pipeline.clone())];
            all.extend(labels.iter().cloned());
            self.all[at].rows.push((all, value(row)));
        }
    }

    /// `_total` is put behind the name.
    pub fn counters(&mut self, name: &'static str, help: &'static str, rows: &[(Labels, u64)]) {
        self.add((name, help, MetricType::Counter), rows, |value| {
            Value::Counter(*value)
        });
    }

    pub fn seconds(&mut self, name: &'static str, help: &'static str, rows: &[(Labels, f64)]) {
        self.add((name, help, MetricType::Counter), rows, |value| {
            Value::Seconds(*value)
        });
    }

    pub fn durations(
        &mut self,
        name: &'static str,
        help: &'static str,
        rows: &[(Labels, Duration)],
    ) {
        self.add((name, help, MetricType::Gauge), rows, |value| {
            Value::Decimal(value.as_secs_f64())
        });
    }

    pub fn decimals(&mut self, name: &'static str, help: &'static str, rows: &[(Labels, f64)]) {
        self.add((name, help, MetricType::Gauge), rows, |value| {
            Value::Decimal(*value)
        });
    }

    pub fn gauges(&mut self, name: &'static str, help: &'static str, rows: &[(Labels, u64)]) {
        let value = |value: &u64| Value::Gauge(i64::try_from(*value).unwrap_or(i64::MAX));
        self.add((name, help, MetricType::Gauge), rows, value);
    }

    pub fn histogram(&mut self, name: &'static str, help: &'static str, commits: &Commits) {
        let rows = [(Vec::new(), commits)];
        self.add((name, help, MetricType::Histogram), &rows, |commits| {
            Value::Histogram(**commits)
        });
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for family in &self.all {
            let (name, help) = (family.name, family.help);
            let mut metric = encoder.encode_descriptor(name, help, None, family.kind)?;
            for (labels, value) in &family.rows {
                value.write(&mut metric.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}
