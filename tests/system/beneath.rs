//! What changes in Kafka beneath a pipeline that has committed: offsets that are gone, changelogs that are made anew, sources that grow.
//! Nothing is counted twice, and no key gets into the wrong place: the pipeline is refused, with what to do.

use rig::folder::Folder;
use rig::judge;
use rig::millstream::{self, Millstream};

use crate::pipelines::{
    WITHIN, run, shared_kafka, start, start_second, values, wait_records, wait_worker, write_to,
    write_values,
};
use crate::states;

fn pipeline(name: &str) -> String {
    states::pipeline(name, "fail")
}

/// Its input through a keyed stream, and nothing else.
fn streamed(name: &str) -> String {
    format!(
        r#"
name = "{name}"
sources.in.topics = ["{name}-in"]
streams.keyed.inputs = ["in"]
sinks.out = {{ inputs = ["keyed"], topic = "{name}-out" }}
"#
    )
}

fn topics(name: &str, partitions: u32) -> (String, String) {
    states::topics(name, partitions);
    (format!("{name}-in"), format!("{name}-out"))
}

fn refused(life: &mut Millstream, words: &str) {
    life.wait_line(words, WITHIN);
    assert_eq!(life.wait_exit(WITHIN).code(), Some(1));
}

fn command(verb: &str, folder: &Folder, more: &[&str]) {
    let file = folder.join("pipeline.toml").display().to_string();
    let output = millstream::run(&[&[verb, &file], more].concat());
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn state_without_committed_offsets_is_refused() {
    let (folder, name) = (Folder::new("beneath"), "expired");
    let (input, output) = topics(name, 1);
    let mut life = run(&folder, &pipeline(name));
    write_values(&folder, &input, &["state count a"; 3]);
    wait_records(&mut life, 3);
    command("drain", &folder, &["--instance", "a"]);
    assert!(life.wait_exit(WITHIN).success());
    // As brokers do with a group that has been empty for longer than they keep offsets.
    let group = ["--delete", "--group", name];
    shared_kafka().tool("consumer.group.ConsumerGroupCommand", &group);

    let mut life = start(&folder, &pipeline(name));
    refused(
        &mut life,
        "group expired has no committed offsets of these sources, and topic expired.sums.changelog has state",
    );
    command("reset", &folder, &["--yes"]);
    let mut life = run(&folder, &pipeline(name));
    wait_records(&mut life, 3);
    assert!(life.terminate(WITHIN).success());
    assert_eq!(values(&output), ["1", "2", "3", "1", "2", "3"]);
}

#[test]
fn a_changelog_that_is_made_anew_beneath_a_running_pipeline_ends_it() {
    let (folder, name) = (Folder::new("beneath"), "swapped");
    let (input, _) = topics(name, 1);
    let mut life = run(&folder, &pipeline(name));
    write_values(&folder, &input, &["state count a"; 3]);
    wait_records(&mut life, 3);
    let changelog = "swapped.sums.changelog";
    judge::run(&["delete", &shared_kafka().direct(), changelog]);
    shared_kafka().topic(changelog, 1, &["cleanup.policy=compact"]);
    let words = "topic swapped.sums.changelog was deleted, or made anew, since";
    refused(&mut life, words);
    let repair =
        "`millstream reset` lets the pipeline begin anew; under another name the map begins empty";
    life.wait_line(repair, WITHIN);
    let mut life = start(&folder, &pipeline(name));
    refused(&mut life, words);
}

/// Who was there before, and held nothing, takes over: neither what it knows of itself nor a copy that it kept makes the new one the old.
#[test]
fn a_changelog_that_is_made_anew_is_taken_over_by_nobody() {
    takes_over_nothing("swapped-idle", 0);
    takes_over_nothing("swapped-standby", 1);
}

fn takes_over_nothing(name: &str, standby: u32) {
    let folder = Folder::new("beneath");
    let (input, output) = topics(name, 1);
    let mut owner = run(&folder, &format!("standby = {standby}\n{}", pipeline(name)));
    write_values(&folder, &input, &["state count a"; 3]);
    wait_records(&mut owner, 3);
    let mut idle = start_second(&folder);
    idle.wait_ready(WITHIN);
    if standby > 0 {
        idle.wait_line("standby copies of partitions: 0", WITHIN);
    }
    let changelog = format!("{name}.sums.changelog");
    judge::run(&["delete", &shared_kafka().direct(), &changelog]);
    shared_kafka().topic(&changelog, 1, &["cleanup.policy=compact"]);
    let words = format!("topic {changelog} was deleted, or made anew, since");
    refused(&mut owner, &words);
    write_values(&folder, &input, &["state count a"]);
    refused(&mut idle, &words);
    assert_eq!(values(&output), ["1", "2", "3"]);
}

/// A start reads all that was committed: of the partitions that it is given, some may never have moved.
#[test]
fn a_changelog_that_is_made_anew_is_seen_by_who_starts_wherever_offsets_moved() {
    let (folder, name) = (Folder::new("beneath"), "swapped-part");
    let (input, _) = topics(name, 2);
    let mut life = run(&folder, &pipeline(name));
    write_to(&folder, &input, "0", "k\tstate count a\n");
    wait_records(&mut life, 1);
    let mut second = start_second(&folder);
    second.wait_ready(WITHIN);
    life.kill();
    second.kill();
    let changelog = "swapped-part.sums.changelog";
    judge::run(&["delete", &shared_kafka().direct(), changelog]);
    shared_kafka().topic(changelog, 2, &["cleanup.policy=compact"]);
    let mut second = start_second(&folder);
    refused(
        &mut second,
        "topic swapped-part.sums.changelog was deleted, or made anew, since swapped-part-in[0]@1 was committed",
    );
}

#[test]
fn a_changelog_that_is_deleted_beneath_a_running_pipeline_ends_it() {
    let (folder, name) = (Folder::new("beneath"), "vanished");
    let (input, output) = topics(name, 1);
    let mut life = run(&folder, &pipeline(name));
    write_values(&folder, &input, &["state count a"; 3]);
    wait_records(&mut life, 3);
    let changelog = "vanished.sums.changelog";
    judge::run(&["delete", &shared_kafka().direct(), changelog]);
    write_values(&folder, &input, &["state count a"]);
    // It is looked for every half a minute, and missing twice.
    let words = "topic vanished.sums.changelog was deleted, or made anew, since this process began: what map \"sums\" had is gone, and its \
                 records count as processed. `millstream reset` lets the pipeline begin anew";
    life.wait_line(words, 2 * WITHIN);
    assert_eq!(life.wait_exit(WITHIN).code(), Some(1));
    assert_eq!(values(&output), ["1", "2", "3"]);
    // Whoever starts makes it anew, and sees that it isn't the same.
    let mut life = start(&folder, &pipeline(name));
    refused(&mut life, "was committed: what map \"sums\" had is gone");
}

/// What waits in a stream counts as processed at the source.
#[test]
fn a_stream_that_is_made_anew_is_refused() {
    let (folder, name) = (Folder::new("beneath"), "restreamed");
    let (input, output) = topics(name, 1);
    let text = streamed(name);
    let mut life = run(&folder, &text);
    write_values(&folder, &input, &["a", "b"]);
    wait_records(&mut life, 4);
    assert!(life.terminate(WITHIN).success());
    judge::run(&[
        "delete",
        &shared_kafka().direct(),
        "restreamed.keyed.stream",
    ]);
    let mut life = start(&folder, &text);
    refused(
        &mut life,
        "topic restreamed.keyed.stream was deleted, or made anew, since restreamed-in[0]@2 was committed: records that waited in it are \
         gone, and count as processed. Under another name the stream begins empty, and the pipeline goes on",
    );
    let mut life = run(&folder, &text.replace("keyed", "again"));
    write_values(&folder, &input, &["c"]);
    wait_records(&mut life, 2);
    assert_eq!(values(&output), ["a", "b", "c"]);
    assert!(life.terminate(WITHIN).success());
}

#[test]
fn a_source_that_grows_beneath_a_pipeline_with_streams_is_refused() {
    let (folder, name) = (Folder::new("beneath"), "grown-streamed");
    let (input, output) = topics(name, 1);
    let mut life = run(&folder, &streamed(name));
    write_values(&folder, &input, &["a"]);
    wait_records(&mut life, 2);
    // Who leads a group, and comes back into its seat, isn't told that it leads: it has to look all the same.
    life.kill();
    let mut life = run(&folder, &streamed(name));
    let more = ["--alter", "--topic", &input, "--partitions", "2"];
    shared_kafka().tool("TopicCommand", &more);
    write_to(&folder, &input, "1", "k\tb\n");
    refused(
        &mut life,
        "topic grown-streamed-in has a partition 1 now, but the pipeline's maps and streams have 1 partitions",
    );
    assert_eq!(values(&output), ["a"]);
}

#[test]
fn a_source_that_grows_beneath_a_pipeline_with_maps_is_refused() {
    let (folder, name) = (Folder::new("beneath"), "grown");
    let (input, output) = topics(name, 1);
    let mut life = run(&folder, &pipeline(name));
    write_values(&folder, &input, &["state count a"]);
    wait_records(&mut life, 1);
    let more = ["--alter", "--topic", &input, "--partitions", "2"];
    shared_kafka().tool("TopicCommand", &more);
    write_to(&folder, &input, "1", "a\tstate count a\n");
    // Whoever comes is told at once; who runs, as soon as it knows.
    let mut second = start_second(&folder);
    let refusal = "changelog \"grown.sums.changelog\" has 1 partitions, but the sources have 2";
    second.wait_line(refusal, WITHIN);
    assert_eq!(second.wait_exit(WITHIN).code(), Some(2));
    refused(&mut life, "topic grown-in has a partition 1 now, but");
    assert_eq!(values(&output), ["1"]);
}

/// Its memory is of records that come again.
#[test]
fn what_a_plugin_saw_in_a_failed_epoch_is_not_in_its_memory() {
    let (folder, name) = (Folder::new("beneath"), "forgetting");
    let (input, output) = topics(name, 1);
    let mut life = run(&folder, &pipeline(name));
    write_values(&folder, &input, &["tally"; 2]);
    wait_records(&mut life, 2);
    assert_eq!(values(&output), ["1", "2"]);
    judge::run(&["delete", &shared_kafka().direct(), &output]);
    write_values(&folder, &input, &["tally"]);
    wait_worker(&mut life, |worker| !worker["retrying"].is_null());
    shared_kafka().topic(&output, 1, &[]);
    wait_records(&mut life, 3);
    assert_eq!(values(&output), ["1"]);
    assert!(life.terminate(WITHIN).success());
}

/// At least once, what a failed epoch had put into the changelog is there, and counts.
#[test]
fn state_is_what_its_changelog_says_after_a_failed_epoch_at_least_once() {
    let (folder, name) = (Folder::new("beneath"), "atleast");
    let (input, output) = topics(name, 1);
    let text = format!(
        "checkpoint.guarantee = \"at-least-once\"\n{}",
        pipeline(name)
    );
    let mut life = run(&folder, &text);
    write_values(&folder, &input, &["state count a"; 3]);
    wait_records(&mut life, 3);
    judge::run(&["delete", &shared_kafka().direct(), &output]);
    write_values(&folder, &input, &["state count a"]);
    wait_worker(&mut life, |worker| !worker["retrying"].is_null());
    shared_kafka().topic(&output, 1, &[]);
    wait_records(&mut life, 4);
    let count = |life: &Millstream| -> u64 {
        let answer = life.get("/v1/pipelines/atleast/maps/sums/entries/a");
        answer.text().parse().expect("a number")
    };
    let after = count(&life);
    assert!(after >= 4, "{after}");
    let said = values(&output);
    assert_eq!(said.last(), Some(&after.to_string()), "{said:?}");
    life.kill();
    let mut life = run(&folder, &text);
    assert_eq!(count(&life), after);
    write_values(&folder, &input, &["state count a"]);
    wait_records(&mut life, 1);
    assert_eq!(count(&life), after + 1);
    assert!(life.terminate(WITHIN).success());
}

/// Where tables or state are awaited, all partitions are read from their offsets anew: those too where nothing is any more.
#[test]
fn what_retention_took_before_it_was_read_stops_its_task_and_no_other_with_state() {
    let (folder, name) = (Folder::new("beneath"), "cutoff");
    let (input, _) = topics(name, 2);
    let mut life = run(&folder, &pipeline(name));
    write_to(&folder, &input, "0", "k\tstate count a\n");
    write_to(&folder, &input, "1", "k\tstate count b\n");
    wait_records(&mut life, 2);
    assert!(life.terminate(WITHIN).success());
    write_to(&folder, &input, "0", "k\tstate count a\n");
    judge::run(&["trim", &shared_kafka().direct(), &input, "2"]);
    let mut life = start(&folder, &pipeline(name));
    let worker = wait_worker(&mut life, |worker| !worker["stopped"][0].is_null());
    let stopped = &worker["stopped"][0];
    assert_eq!(
        (&stopped["topic"], &stopped["partition"]),
        (&"cutoff-in".into(), &0.into())
    );
    let reason = stopped["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("kafka-consumer-groups.sh --reset-offsets"),
        "{worker}"
    );
    write_to(&folder, &input, "1", "k\tstate count b\n");
    wait_records(&mut life, 1);
    assert!(life.terminate(WITHIN).success());
}

/// As a topic that lost its last records with its only broker, or an offset that somebody set.
#[test]
fn an_offset_past_the_end_stops_its_task_and_is_named() {
    let (folder, name) = (Folder::new("beneath"), "past-the-end");
    let (input, output) = topics(name, 1);
    let mut life = run(&folder, &pipeline(name));
    write_values(&folder, &input, &["state count a"]);
    wait_records(&mut life, 1);
    command("drain", &folder, &["--instance", "a"]);
    assert!(life.wait_exit(WITHIN).success());
    judge::run(&["commit", &shared_kafka().direct(), name, &input, "7"]);
    let mut life = start(&folder, &pipeline(name));
    let worker = wait_worker(&mut life, |worker| !worker["stopped"][0].is_null());
    let stopped = &worker["stopped"][0];
    assert_eq!(
        (&stopped["topic"], &stopped["offset"]),
        (&input.into(), &7.into())
    );
    let reason = stopped["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("it has 0 to 1: "), "{worker}");
    assert!(
        reason.contains("kafka-consumer-groups.sh --reset-offsets"),
        "{worker}"
    );
    assert!(life.terminate(WITHIN).success());
    assert_eq!(values(&output), ["1"]);
}

/// The records of a keyed stream are deleted once they are consumed.
#[test]
fn streams_are_purged_as_they_are_consumed() {
    let (folder, name) = (Folder::new("beneath"), "purged");
    let (input, output) = topics(name, 1);
    let mut life = run(&folder, &streamed(name));
    write_values(&folder, &input, &["a", "b", "c"]);
    wait_records(&mut life, 6);
    let offsets = ["--topic", "purged.keyed.stream", "--time", "earliest"];
    let began = std::time::Instant::now();
    loop {
        let first = shared_kafka().tool("GetOffsetShell", &offsets);
        if first.trim() == "purged.keyed.stream:0:3" || first.trim() == "purged.keyed.stream:0:4" {
            break;
        }
        assert!(began.elapsed() < WITHIN, "{first}");
    }
    write_values(&folder, &input, &["d"]);
    wait_records(&mut life, 8);
    assert_eq!(values(&output), ["a", "b", "c", "d"]);
    assert!(life.terminate(WITHIN).success());
}
