//! What the pipeline has written to its topic, read by Kafka's console consumer, held against what was written to it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::ground::{Ground, KAFKA};
use super::orders::Total;
use super::{OUTPUT, WITHIN, say};

/// What would come after the last one has come by then.
const MORE: Duration = Duration::from_secs(2);

/// A country, and what its total has become.
pub type Output = (String, Total);

/// All outputs, in the order of each partition. Waits for so many, and for whether there are more.
pub fn read(ground: &Ground, expected: u64) -> Result<Vec<Output>> {
    let bootstrap = ground.bootstrap();
    let arguments = [
        "consumer.ConsoleConsumer",
        "--bootstrap-server",
        &bootstrap,
        "--topic",
        OUTPUT,
        "--from-beginning",
        "--isolation-level",
        "read_committed",
        "--formatter-property",
        "print.key=true",
    ];
    say(&format!("$ {KAFKA} tool {}", arguments.join(" ")));
    let mut command = ground.tool(&arguments);
    command
        .stdout(Stdio::piped())
        .stderr(ground.log("consumer")?);
    let mut consumer = Killed(ground.spawn(&mut command)?);
    let output = consumer.0.stdout.take().context("its output is piped")?;
    let (sender, lines) = mpsc::sync_channel(1_000);
    std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        // Nobody takes them any more once enough were read.
        lines.map(|line| sender.send(line)).find(Result::is_err)
    });
    let mut outputs = Vec::new();
    loop {
        let complete = outputs.len() as u64 >= expected;
        match lines.recv_timeout(if complete { MORE } else { WITHIN }) {
            Ok(line) => outputs.push(parse(&line).with_context(|| format!("output {line:?}"))?),
            Err(RecvTimeoutError::Timeout) => return Ok(outputs),
            Err(RecvTimeoutError::Disconnected) => bail!("the console consumer has ended"),
        }
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Nothing to do where it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn parse(line: &str) -> Option<Output> {
    let (country, total) = line.split_once('\t')?;
    let total: Value = serde_json::from_str(total).ok()?;
    let (count, sum) = (total["count"].as_u64()?, total["sum"].as_u64()?);
    Some((country.to_owned(), Total { count, sum }))
}

/// Fails unless each country's outputs count its orders one by one, up to what is expected.
pub fn compare(outputs: &[Output], expected: &BTreeMap<&'static str, Total>) -> Result<()> {
    let mut last: BTreeMap<&str, Total> = BTreeMap::new();
    for (country, total) in outputs {
        let before = last.insert(country, *total).unwrap_or_default();
        ensure!(
            total.count == before.count + 1,
            "of {country} an output says {total}, and the one before it {before}"
        );
    }
    for (country, expected) in expected {
        let found = last.remove(country).unwrap_or_default();
        ensure!(
            found == *expected,
            "{expected} of {country} were written, and the last output says {found}"
        );
    }
    ensure!(
        last.is_empty(),
        "outputs of countries that had no orders: {last:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(outputs: &[(&str, u64, u64)], wrong: Option<&str>) {
        let expected = BTreeMap::from([("DE", Total { count: 2, sum: 5 })]);
        let output = |(country, count, sum): &(&str, u64, u64)| {
            let total = Total {
                count: *count,
                sum: *sum,
            };
            ((*country).to_owned(), total)
        };
        let outputs: Vec<Output> = outputs.iter().map(output).collect();
        let found = compare(&outputs, &expected)
            .err()
            .map(|why| why.to_string());
        assert_eq!(found.as_deref(), wrong);
    }

    #[test]
    fn an_output_too_many_or_too_few_is_told() {
        check(&[("DE", 1, 2), ("DE", 2, 5)], None);
        check(
            &[("DE", 1, 2), ("DE", 1, 2), ("DE", 2, 5)],
            Some("of DE an output says 1 orders of 2, and the one before it 1 orders of 2"),
        );
        check(
            &[("DE", 1, 2)],
            Some("2 orders of 5 of DE were written, and the last output says 1 orders of 2"),
        );
        check(
            &[("DE", 1, 2), ("DE", 2, 6)],
            Some("2 orders of 5 of DE were written, and the last output says 2 orders of 6"),
        );
        check(
            &[("DE", 1, 2), ("DE", 2, 5), ("FR", 1, 1)],
            Some("outputs of countries that had no orders: {\"FR\": Total { count: 1, sum: 1 }}"),
        );
    }
}
