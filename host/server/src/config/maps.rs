//! The maps of a pipeline file: those that sinks write, those that are a step's state and those made from topics, and which of them a
//! step may read.

use millstream_engine::pipeline::{Grant, Kept, Map, MapId};

use super::file::{self, File, Target};
use super::problem::{Findings, Placed, did_you_mean};
use super::value::is_name;

/// Maps that sinks write, in the order of the sinks, then steps' state, in the order of the steps, then tables made from topics, in
/// the order of the file.
pub(super) fn all(file: &File) -> Vec<Map> {
    let mut maps: Vec<Map> = Vec::new();
    let sinks = written(file).map(|(_, name)| (name, Kept::Changelog));
    let steps = states(file).map(|(_, name)| (name, Kept::State));
    for (name, kept) in sinks.chain(steps) {
        if !maps.iter().any(|map| map.name == name.value) {
            let said = file.maps.iter().find(|map| map.name.value == name.value);
            maps.push(Map {
                name: name.value.clone(),
                kept,
                replicated: said.is_some_and(|map| map.replicated),
                index: said.map(|map| map.index.clone()).unwrap_or_default(),
            });
        }
    }
    let tables = file.maps.iter().filter_map(|map| {
        let topic = map.topic.as_ref()?.as_ref()?;
        Some(Map {
            name: map.name.value.clone(),
            kept: Kept::Topic(topic.value.clone()),
            replicated: map.replicated,
            index: map.index.clone(),
        })
    });
    maps.extend(tables);
    maps
}

/// A map is made from a topic, or one sink writes it, or it is the state of one step.
pub(super) fn check(file: &File, findings: &mut Findings<'_>) {
    check_states(file, findings);
    for map in &file.maps {
        let name = &map.name.value;
        let writes = |(_, written): &(&file::Sink, &Placed<String>)| written.value == *name;
        match (written(file).find(writes), &map.topic) {
            (Some((sink, target)), Some(_)) => {
                let line = findings.line(&map.name.place);
                let message = format!(
                    "map {name:?} is made from a topic on line {line}: no sink can write it"
                );
                let hint = format!(
                    "let sink {:?} write that topic, or another map",
                    sink.name.value
                );
                findings.problem_with_hint(&target.place, message, Some(hint));
            }
            (None, None) if states(file).any(|(_, state)| state.value == *name) => {}
            (None, None) if all_targets_known(file) && is_name(name) => {
                let targets = written(file).map(|(_, map)| map.value.as_str());
                let states = states(file).map(|(_, map)| map.value.as_str());
                let hint = did_you_mean(name, targets.chain(states))
                    .unwrap_or_else(|| "name the `topic` that it is made from".into());
                let message =
                    "no sink writes this map, it is no step's state, and it is made from no topic";
                findings.absent(&map.name.place, message, Some(hint));
            }
            (Some(_), None) | (None, _) => {}
        }
    }
}

/// A step's state is its alone.
fn check_states(file: &File, findings: &mut Findings<'_>) {
    for (at, (step, state)) in states(file).enumerate() {
        let name = &state.value;
        let said = file.maps.iter().find(|map| map.name.value == *name);
        let problem = if let Some((sink, _)) = written(file).find(|(_, map)| map.value == *name) {
            let sink = &sink.name.value;
            let hint = format!(
                "give the state another name, or take it out of step {:?}",
                step.name.value
            );
            Some((
                format!("map {name:?} is written by sink {sink:?}: it can't be a step's state"),
                hint,
            ))
        } else if let Some((other, _)) = states(file).take(at).find(|(_, map)| map.value == *name) {
            let other = &other.name.value;
            let hint = "give each step its own state; what two steps need is written by one and read through `lookups` of a sink's map";
            Some((
                format!("map {name:?} is the state of step {other:?} already"),
                hint.into(),
            ))
        } else if let Some(map) = said.filter(|map| map.topic.is_some()) {
            let line = findings.line(&map.name.place);
            let message = format!(
                "map {name:?} is made from a topic on line {line}: it can't be a step's state"
            );
            Some((message, "give the state another name".into()))
        } else if said.is_some_and(|map| map.replicated) {
            let message = format!(
                "map {name:?} is said to be replicated: each task keeps its own partition of a step's state"
            );
            Some((message, "take `replicated` out".into()))
        } else {
            None
        };
        if let Some((message, hint)) = problem {
            findings.problem_with_hint(&state.place, message, Some(hint));
        }
    }
}

/// A step's state; all of it is in `maps`.
pub(super) fn state(file: &File, step: &file::Step) -> Vec<Grant> {
    let maps = all(file);
    let granted = step.state.iter().filter_map(|state| {
        let map = maps.iter().position(|map| map.name == state.map.value)?;
        Some(Grant {
            name: state.name.clone(),
            map: MapId(map),
        })
    });
    granted.collect()
}

/// The maps that a step may read; none if one of them was found not to be there.
pub(super) fn lookups(
    file: &File,
    step: &file::Step,
    findings: &mut Findings<'_>,
) -> Option<Vec<Grant>> {
    let maps = all(file);
    let mut found = Vec::new();
    for lookup in &step.lookups {
        let wanted = &lookup.map.value;
        if let Some((owner, _)) = states(file).find(|(_, map)| map.value == *wanted) {
            let owner = &owner.name.value;
            let message =
                format!("map {wanted:?} is the state of step {owner:?}: no step can look it up");
            let hint = "let a sink write what others need into a map".to_owned();
            findings.problem_with_hint(&lookup.map.place, message, Some(hint));
            continue;
        }
        match maps.iter().position(|map| map.name == *wanted) {
            Some(map) => found.push(Grant {
                name: lookup.name.clone(),
                map: MapId(map),
            }),
            // Declared, but told to be wrong where it is.
            None if file.maps.iter().any(|map| map.name.value == *wanted) => {}
            None if !all_targets_known(file) => {}
            None => {
                let hint = did_you_mean(wanted, maps.iter().map(|map| map.name.as_str()));
                let message = format!("no map is named {wanted:?}");
                findings.absent(&lookup.map.place, message, hint);
            }
        }
    }
    (found.len() == step.lookups.len()).then_some(found)
}

/// Whether nothing is hidden by a sink whose target could not be read.
fn all_targets_known(file: &File) -> bool {
    file.sinks.iter().all(|sink| sink.target.is_some())
}

/// Steps with state, each with the names of the maps.
pub(super) fn states(file: &File) -> impl Iterator<Item = (&file::Step, &Placed<String>)> {
    let steps = file.steps.iter();
    steps.flat_map(|step| step.state.iter().map(move |state| (step, &state.map)))
}

/// Sinks that write maps, with the maps' names.
fn written(file: &File) -> impl Iterator<Item = (&file::Sink, &Placed<String>)> {
    file.sinks.iter().filter_map(|sink| match &sink.target {
        Some(Target::Map(map)) => Some((sink, map)),
        Some(Target::Topic(_)) | None => None,
    })
}
