//! An instance of a pipeline that runs on this host, as `drain`, `reload` and `rollback` are told of it.

use std::path::PathBuf;

use clap::Args;

use super::{host_name, instance_name, read, runtime};
use crate::config::Overrides;
use crate::load;
use crate::seat_lock::{Holder, LockError, SeatLock};
use crate::supervisor::Failure;

/// Said where there is no such process.
pub const NOBODY: &str = "no such process runs on this host. One that was started with another --instance or --bootstrap is found with the same";

#[derive(Debug, Args)]
pub struct Named {
    /// The pipeline file.
    pipeline: PathBuf,
    /// Name of the process among those of the pipeline, as `run` was given it. The host's name by default.
    #[arg(long, value_parser = instance_name)]
    instance: Option<String>,
    /// Brokers, as `run` was given them, in place of the file's `bootstrap.servers`.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
}

/// What its lock is named by.
#[derive(Debug)]
pub struct Here {
    pub pipeline: String,
    pub instance: String,
    pub bootstrap: String,
}

impl Named {
    /// Reads the pipeline file, for the names that stand in it.
    pub fn read(self) -> Result<Here, Failure> {
        let overrides = Overrides {
            bootstrap: self.bootstrap,
            embedded: false,
        };
        let config = read(&self.pipeline, &overrides, &runtime()?)?;
        let instance = self.instance.unwrap_or_else(host_name);
        let clients = load::clients(&config, &instance)?;
        Ok(Here {
            bootstrap: clients.bootstrap().to_owned(),
            pipeline: config.pipeline.name,
            instance,
        })
    }
}

impl Here {
    /// Who has its name.
    pub fn holder(&self) -> Result<Holder, LockError> {
        SeatLock::holder(&self.pipeline, &self.instance, &self.bootstrap)
    }
}
