//! Dead letters: whoever has them needs a reader, and whoever reads them needs somebody who has them.

use millstream_engine::pipeline::{FAILED_PORT, OnError};

use super::file::File;
use super::problem::{Findings, Placed};

pub(super) fn check(file: &File, findings: &mut Findings<'_>) {
    let steps = file.steps.iter().map(|step| &step.inputs);
    let sinks = file.sinks.iter().map(|sink| &sink.inputs);
    let streams = file.streams.iter().map(|stream| &stream.inputs);
    let inputs: Vec<&Placed<String>> = steps.chain(sinks).chain(streams).flatten().collect();
    for step in &file.steps {
        let name = &step.name.value;
        let port = format!("{name}.{FAILED_PORT}");
        let readers = || inputs.iter().filter(|input| input.value == port);
        match step.on_error.value {
            Some(OnError::DeadLetter) if readers().next().is_none() => {
                let hint =
                    format!("`[sinks.dead-letters] inputs = [{port:?}], topic = \"…\"` keeps them");
                let message = format!("nobody reads {port:?}, by which its dead letters leave");
                findings.absent(&step.on_error.place, message, Some(hint));
            }
            Some(OnError::Fail | OnError::Skip) => {
                for reader in readers() {
                    let message = format!("step {name:?} has no dead letters");
                    let hint = "`on-error = \"dead-letter\"` makes it set them aside".to_owned();
                    findings.problem_with_hint(&reader.place, message, Some(hint));
                }
            }
            Some(OnError::DeadLetter) | None => {}
        }
        if let Some(replay) = step.replay.as_ref().filter(|replay| replay.value)
            && matches!(step.on_error.value, Some(OnError::Fail | OnError::Skip))
        {
            let message = format!("step {name:?} has no dead letters that could come back");
            let hint = "`on-error = \"dead-letter\"` makes it set them aside".to_owned();
            findings.problem_with_hint(&replay.place, message, Some(hint));
        }
    }
}
