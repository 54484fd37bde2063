//! How long something took each time, summed up in one line.

use std::time::Duration;

#[derive(Default)]
pub struct Timings {
    taken: Vec<Duration>,
    /// Begun, and cut short by the next disturbance before they came to their end: how long they had taken by then.
    cut: Vec<Duration>,
}

impl Timings {
    pub fn add(&mut self, took: Duration) {
        self.taken.push(took);
    }

    pub fn add_cut(&mut self, after: Duration) {
        self.cut.push(after);
    }

    pub fn print(&mut self, what: &str) {
        self.taken.sort();
        let cut = self.cut.iter().max().copied().unwrap_or_default();
        println!(
            "{what}: {} times, p50 {:.2?}, p99 {:.2?}, max {:.2?}; {} cut short, after {cut:.2?} at most",
            self.taken.len(),
            self.at(50),
            self.at(99),
            self.at(100),
            self.cut.len()
        );
    }

    /// The shortest time that so many of a hundred did not exceed.
    pub fn at(&self, percent: usize) -> Duration {
        let rank = (self.taken.len() * percent).div_ceil(100).max(1);
        self.taken.get(rank - 1).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::Timings;
    use std::time::Duration;

    #[test]
    fn percentiles_are_of_what_was_taken() {
        let mut timings = Timings::default();
        for milliseconds in 1..=200 {
            timings.add(Duration::from_millis(milliseconds));
        }
        let at = |percent| timings.at(percent).as_millis();
        assert_eq!([at(50), at(99), at(100)], [100, 198, 200]);
        assert_eq!(Timings::default().at(99), Duration::ZERO);
    }
}
