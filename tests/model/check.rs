//! The protocol as the checker takes it, and what a check came to.

use std::time::{Duration, Instant};

use stateright::{Checker as _, HasDiscoveries, Model, Path, Property};

use crate::action::Action;
use crate::kafka::{PARTITIONS, RECORDS_MAX};
use crate::properties;
use crate::rule::Rule;
use crate::world::World;

/// What is checked: how many records each partition has, and which rule is not kept.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub(crate) records: [u8; 2],
    without: Option<Rule>,
    sought: Sought,
}

#[derive(Clone, Copy, Debug)]
enum Sought {
    /// Of what must hold in every world.
    Violations,
    /// To what must come to be.
    Courses,
}

#[derive(Debug)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// How many worlds were looked at. No two of them are alike, nor alike but for the seats' names.
    pub states: usize,
    /// How many of them the longest of the shortest courses leads through.
    pub depth: usize,
    pub took: Duration,
}

/// What was found for a property.
#[derive(Debug)]
pub struct Finding {
    pub property: &'static str,
    /// To the violation, or to what had to come to be.
    pub course: Option<Vec<Action>>,
}

impl Protocol {
    /// With all rules kept.
    ///
    /// # Panics
    ///
    /// Where a partition is to have more records than a world holds.
    pub fn new(records: [u8; 2]) -> Self {
        assert!(
            records.iter().all(|&records| records <= RECORDS_MAX),
            "a partition has {RECORDS_MAX} records at most"
        );
        Self {
            records,
            without: None,
            sought: Sought::Violations,
        }
    }

    #[must_use]
    pub fn without(self, rule: Rule) -> Self {
        Self {
            without: Some(rule),
            ..self
        }
    }

    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Whether all records are committed, for everybody to read.
    pub(crate) fn is_done(&self, world: &World) -> bool {
        let committed = |at: usize| world.kafka.offsets[at].at == self.records[at];
        PARTITIONS.into_iter().all(committed)
    }

    /// Looks at every world that can come to be, or up to the first violation.
    pub fn check(self) -> Report {
        self.look(HasDiscoveries::AnyFailures, None)
    }

    /// Looks until everything that must come to be has.
    pub fn look_for_courses(self) -> Report {
        let sought = Sought::Courses;
        Self { sought, ..self }.look(HasDiscoveries::All, None)
    }

    /// The shortest course to a violation.
    pub fn counterexample(self) -> Option<Finding> {
        let mut shortest: Option<(usize, Finding)> = None;
        // The checker looks on for a while when it has found one, and keeps the last.
        loop {
            let below = shortest.as_ref().map(|(actions, _)| *actions);
            let report = self.look(HasDiscoveries::AnyFailures, below);
            let found = report.findings.into_iter().filter_map(|finding| {
                let actions = finding.course.as_ref()?.len();
                Some((actions, finding))
            });
            match found.min_by_key(|(actions, _)| *actions) {
                Some(shorter) => shortest = Some(shorter),
                None => return shortest.map(|(_, finding)| finding),
            }
        }
    }

    /// One thread, so that courses are searched in the order of their lengths; `below` so many actions, if there is a limit.
    fn look(self, finish: HasDiscoveries, below: Option<usize>) -> Report {
        let began = Instant::now();
        let mut checker = self.checker().finish_when(finish);
        if let Some(actions) = below {
            // It counts worlds, the first one too, and leaves out those at the limit.
            checker = checker.target_max_depth(actions + 1);
        }
        let checker = checker.spawn_bfs().join();
        let mut courses = checker.discoveries();
        let findings = self.properties().into_iter().map(|property| Finding {
            property: property.name,
            course: courses.remove(property.name).map(Path::into_actions),
        });
        Report {
            findings: findings.collect(),
            states: checker.unique_state_count(),
            depth: checker.max_depth(),
            took: began.elapsed(),
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::first()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.offer(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let next = self.follow(world, action);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        match self.sought {
            Sought::Violations => properties::invariants(),
            Sought::Courses => properties::courses(),
        }
    }
}
