//! The maps of a pipeline file: those that sinks write and those made from topics, and which of them a step may read.

use millstream_engine::pipeline::{Kept, Lookup, Map, MapId};

use super::file::{self, File, Target};
use super::problem::{Findings, Placed, did_you_mean};
use super::value::is_name;

/// Maps that sinks write, in the order of the sinks, then tables made from topics, in the order of the file.
pub(super) fn all(file: &File) -> Vec<Map> {
    let mut maps: Vec<Map> = Vec::new();
    for (_, name) in written(file) {
        if !maps.iter().any(|map| map.name == name.value) {
            let said = file.maps.iter().find(|map| map.name.value == name.value);
            maps.push(Map {
                name: name.value.clone(),
                kept: Kept::Changelog,
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

/// A map is made from a topic, or one sink writes it.
pub(super) fn check(file: &File, findings: &mut Findings<'_>) {
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
            (None, None) if all_targets_known(file) && is_name(name) => {
                let targets = written(file).map(|(_, map)| map.value.as_str());
                let hint = did_you_mean(name, targets)
                    .unwrap_or_else(|| "name the `topic` that it is made from".into());
                let message = "no sink writes this map, and it is made from no topic";
                findings.absent(&map.name.place, message, Some(hint));
            }
            (Some(_), None) | (None, _) => {}
        }
    }
}

/// The maps that a step may read; none if one of them was found not to be there.
pub(super) fn lookups(
    file: &File,
    step: &file::Step,
    findings: &mut Findings<'_>,
) -> Option<Vec<Lookup>> {
    let maps = all(file);
    let mut found = Vec::new();
    for lookup in &step.lookups {
        let wanted = &lookup.map.value;
        match maps.iter().position(|map| map.name == *wanted) {
            Some(map) => found.push(Lookup {
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

/// Sinks that write maps, with the maps' names.
fn written(file: &File) -> impl Iterator<Item = (&file::Sink, &Placed<String>)> {
    file.sinks.iter().filter_map(|sink| match &sink.target {
        Some(Target::Map(map)) => Some((sink, map)),
        Some(Target::Topic(_)) | None => None,
    })
}
