//! What holds in a small world; and for each rule around the machine, what is violated without it: the rule is needed, and the checker
//! finds it.

#![forbid(unsafe_code)]

use model::Protocol;
use model::rule::Rule;

#[test]
fn nothing_is_violated_with_two_records() {
    let protocol = Protocol::new([1, 1]);
    let report = protocol.check();
    for finding in &report.findings {
        assert_eq!(finding.course, None, "{}", finding.property);
    }
    assert!(report.states > 1_000_000, "{} states", report.states);
}

#[test]
fn from_everywhere_records_can_be_committed_without_another_fault() {
    let healing = Protocol::new([2, 0]).heals();
    assert!(healing.stuck.is_none(), "{:#?}", healing.stuck);
    assert!(healing.worlds > 500_000, "{} worlds", healing.worlds);
}

#[test]
fn every_course_is_met() {
    for finding in Protocol::new([2, 1]).look_for_courses().findings {
        assert!(finding.course.is_some(), "never: {}", finding.property);
    }
}

const ONCE: &str = "a record takes effect at most once";
const IN_ORDER: &str = "outputs are in order and without gaps, up to the committed offset";
const FOLDED: &str = "a member's state is the fold of what its position covers";
const MERGED: &str = "nobody merges what was not committed";
const DROPPED: &str = "no member drops what was committed";
const SHUT_OUT: &str = "who lost a partition commits nothing of it afterwards";

/// Without the rule, the shortest course to a violation has so many actions, and that is what is violated.
fn check(rule: Rule, actions: usize, violated: &str) {
    let found = Protocol::new([2, 1]).without(rule).counterexample();
    let found = found.unwrap_or_else(|| panic!("nothing is violated without {rule:?}"));
    let course = found.course.expect("a counterexample has a course");
    println!(
        "without {rule:?}: \"{}\" is violated after {}",
        found.property,
        course.len()
    );
    for (number, action) in (1..).zip(&course) {
        println!("{number:>4}. {action}");
    }
    assert_eq!((found.property, course.len()), (violated, actions));
}

#[test]
fn a_producer_is_replaced_after_several_requests_to_commit() {
    check(Rule::ReplaceAfterSeveralSends, 11, IN_ORDER);
}

#[test]
fn a_producer_is_replaced_after_several_requests_to_add_offsets() {
    check(Rule::ReplaceAfterSeveralOffsets, 14, IN_ORDER);
}

#[test]
fn a_producer_is_replaced_after_an_abort() {
    check(Rule::ReplaceAfterAbort, 7, ONCE);
}

#[test]
fn a_producer_is_replaced_after_a_commit_in_doubt() {
    check(Rule::ReplaceInDoubt, 12, IN_ORDER);
}

#[test]
fn a_commit_in_doubt_is_no_abort() {
    check(Rule::DoubtIsNoAbort, 9, DROPPED);
}

#[test]
fn a_commit_in_doubt_is_no_commit() {
    check(Rule::DoubtIsNoCommit, 5, MERGED);
}

#[test]
fn the_transaction_is_closed_before_partitions_are_given_up() {
    check(Rule::CloseBeforeGivingUp, 10, SHUT_OUT);
}

#[test]
fn offsets_are_taken_from_the_present_generation_only() {
    check(Rule::CheckGeneration, 10, SHUT_OUT);
}

#[test]
fn a_seat_initialises_its_producer_at_the_start() {
    check(Rule::InitialiseAtStart, 11, ONCE);
}

#[test]
fn offsets_are_read_once_none_is_pending() {
    check(Rule::ReadStableOffsets, 10, SHUT_OUT);
}

#[test]
fn changelogs_are_read_to_the_high_watermark() {
    check(Rule::RestoreToHighWatermark, 12, FOLDED);
}
