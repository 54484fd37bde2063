//! The pipelines of a process, and how each stands: it starts, it runs, or it has ended while others go on.
//!
//! Invariant: of a pipeline that has ended nothing is answered any more, and nothing of it is kept.

use std::sync::{Arc, PoisonError, RwLock};

use axum::http::StatusCode;

use super::{Refusal, Served};

#[derive(Clone, Debug)]
pub struct Hosted(Arc<Process>);

#[derive(Debug)]
struct Process {
    instance: String,
    address: String,
    /// By name, in the order of the command line.
    pipelines: Vec<(String, RwLock<Standing>)>,
}

#[derive(Clone, Debug)]
pub enum Standing {
    Starting,
    Running(Arc<Served>),
    /// With why, unless it was asked to.
    Ended(Option<String>),
}

impl Standing {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running(_) => "running",
            Self::Ended(_) => "ended",
        }
    }
}

impl Hosted {
    /// Pipelines of these names, which start. Other instances are told to ask at `address`.
    pub fn new(instance: &str, address: &str, names: impl Iterator<Item = String>) -> Self {
        Self(Arc::new(Process {
            instance: instance.into(),
            address: address.into(),
            pipelines: names
                .map(|name| (name, RwLock::new(Standing::Starting)))
                .collect(),
        }))
    }

    pub fn instance(&self) -> &str {
        &self.0.instance
    }

    /// Where other instances are told to ask this one.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// How all of them stand at the moment, by name.
    pub fn all(&self) -> impl Iterator<Item = (&str, Standing)> {
        let pipelines = self.0.pipelines.iter();
        pipelines.map(|(name, standing)| {
            let standing = standing.read().unwrap_or_else(PoisonError::into_inner);
            (name.as_str(), standing.clone())
        })
    }

    /// Notes how one of them stands from now on.
    pub fn note(&self, pipeline: &str, standing: Standing) {
        for (_, known) in self.0.pipelines.iter().filter(|(name, _)| name == pipeline) {
            let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
            *known = standing.clone();
        }
    }

    /// What the pipeline of that name is asked for.
    pub fn of(&self, name: &str) -> Option<Result<Arc<Served>, Refusal>> {
        let (_, standing) = self.all().find(|(known, _)| *known == name)?;
        let unready = |why| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why);
        Some(match standing {
            Standing::Running(served) => Ok(served),
            Standing::Starting => Err(unready(format!("pipeline \"{name}\" is starting"))),
            Standing::Ended(why) => {
                let why = why.unwrap_or_else(|| "it was asked to".into());
                Err(unready(format!(
                    "pipeline \"{name}\" has ended here: {why}"
                )))
            }
        })
    }
}
