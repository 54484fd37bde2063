//! The least of a run that still goes wrong in the same way: faults are left out one by one, and batches from the end.
//!
//! Invariant: what comes out violates what the whole run did, and with one fault or one batch less it doesn't any more.

use super::{Orders, Report, run};

pub fn shrink(seed: u64, report: &Report) -> (Orders, Report) {
    least(report, |orders| run(seed, orders))
}

fn least(report: &Report, run: impl Fn(&Orders) -> Report) -> (Orders, Report) {
    let mut orders = Orders {
        faults: Some((0..report.faults).collect()),
        batches: Some(report.batches),
        trace: false,
    };
    let name = |report: &Report| report.violation.as_ref().map(|violation| violation.name);
    let mut least = report.clone();
    let mut smaller = true;
    while smaller {
        smaller = false;
        for tried in smaller_ones(&orders) {
            let found = run(&tried);
            if name(&found) == name(report) {
                (orders, least, smaller) = (tried, found, true);
                break;
            }
        }
    }
    (orders, least)
}

/// Without one of the faults, with half of the batches, and with one batch less.
fn smaller_ones(orders: &Orders) -> Vec<Orders> {
    let faults = orders.faults.clone().unwrap_or_default();
    let without = faults.iter().map(|left_out| {
        let others = faults.iter().filter(|fault| *fault != left_out);
        Orders {
            faults: Some(others.copied().collect()),
            ..orders.clone()
        }
    });
    let batches = orders.batches.unwrap_or(0);
    let fewer = [batches / 2, batches.saturating_sub(1)].into_iter();
    let fewer = fewer.filter(|&fewer| fewer < batches).map(|fewer| Orders {
        batches: Some(fewer),
        ..orders.clone()
    });
    without.chain(fewer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::wrong;

    /// A run of nine faults and twenty batches that is `torn` where `is_torn` says so, and otherwise violates something else.
    fn check(is_torn: fn(&[usize], usize) -> bool, faults: &[usize], batches: usize) {
        let run = |orders: &Orders| {
            let all: Vec<usize> = (0..9).collect();
            let faults = orders.faults.as_deref().unwrap_or(&all);
            let batches = orders.batches.unwrap_or(20);
            let name = if is_torn(faults, batches) {
                "torn"
            } else {
                "lost"
            };
            Report {
                steps: 1,
                courses: Default::default(),
                violation: Some(wrong(name, format!("{faults:?}, {batches}"))),
                trace: String::new(),
                faults: faults.len(),
                batches,
            }
        };
        let (orders, report) = least(&run(&Orders::default()), run);
        assert_eq!(orders.faults.as_deref(), Some(faults));
        assert_eq!(orders.batches, Some(batches));
        let expected = wrong("torn", format!("{faults:?}, {batches}"));
        assert_eq!(report.violation, Some(expected));
    }

    #[test]
    fn the_least_that_goes_wrong_in_the_same_way_is_found() {
        check(|_, _| true, &[], 0);
        check(|faults, _| faults.contains(&4), &[4], 0);
        check(|_, batches| batches >= 13, &[], 13);
        check(
            |faults, batches| faults.contains(&2) && faults.contains(&7) && batches >= 3,
            &[2, 7],
            3,
        );
        // Any eight will do: the first one that can go, goes.
        check(
            |faults, batches| faults.len() >= 8 && batches == 20,
            &[1, 2, 3, 4, 5, 6, 7, 8],
            20,
        );
    }
}
