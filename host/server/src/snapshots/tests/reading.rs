//! Changelogs that are read on from snapshots, and from what was held before.

use millstream_engine::state::overlay::Change;

use super::*;
use crate::changelogs::Changelogs;
use crate::cluster::{Read, ReadPlace, Reader};
use crate::standby::Standbys;

/// A changelog in memory, of which so many records are handed out at a time.
#[derive(Debug)]
struct Log {
    end: i64,
    /// Where there is more than can be read.
    high_watermark: Option<i64>,
    topic: Option<u128>,
    /// The partition whose bounds nobody tells the next time.
    away: Cell<Option<u32>>,
    /// The topic's id is told by nobody the next time.
    nameless: Cell<bool>,
    /// Something comes next that can't be read.
    damaged: bool,
    /// None where nothing is assigned.
    next: Option<i64>,
    /// Where reading began, each time.
    assigned: Vec<Vec<i64>>,
}

impl Reader for Log {
    fn assign(&mut self, places: &[(&str, u32, i64)]) -> Result<(), String> {
        self.next = places.first().map(|place| place.2);
        self.assigned
            .push(places.iter().map(|place| place.2).collect());
        Ok(())
    }

    fn bounds(&self, _: &str, partition: u32) -> Result<(i64, i64), String> {
        if self.away.get() == Some(partition) {
            self.away.set(None);
            return Err("nobody leads it".into());
        }
        Ok((0, self.high_watermark.unwrap_or(self.end)))
    }

    fn stable_end(&self, _: &str, _: u32) -> Result<i64, String> {
        Ok(self.end)
    }

    fn topic_id(&self, _: &str) -> Result<Option<u128>, String> {
        if self.nameless.take() {
            return Err("nobody knows it".into());
        }
        Ok(self.topic)
    }

    fn poll(&mut self, mut each: impl FnMut(ReadPlace<'_>, Read<'_>)) {
        let Some(next) = self.next else { return };
        if std::mem::take(&mut self.damaged) {
            each(("log", 0), Read::Unreadable);
            return;
        }
        let upto = self.end.min(next + 1000);
        for offset in next..upto {
            let (key, value) = change(offset);
            let (key, value) = (Some(&key[..]), value.as_deref());
            each(("log", 0), Read::Record { offset, key, value });
        }
        self.next = Some(upto);
    }
}

fn changelogs(rig: &Rig, end: i64, topic: u128) -> Changelogs<Log> {
    let log = Log {
        end,
        high_watermark: None,
        topic: Some(topic),
        away: Cell::new(None),
        nameless: Cell::new(false),
        damaged: false,
        next: None,
        assigned: Vec::new(),
    };
    let snapshots = Some(Arc::clone(&rig.snapshots));
    Changelogs::new(log, vec!["log".into()], Arc::clone(&rig.memory), snapshots)
}

fn poll_until_live(changelogs: &mut Changelogs<Log>) -> SharedPartition {
    let shared = Arc::clone(&changelogs.held()[&PLACE]);
    let began = Instant::now();
    while shared.read().unwrap().phase() != Phase::Live {
        changelogs.poll().unwrap();
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    shared
}

#[test]
fn changelogs_are_read_on_from_snapshots() {
    let rig = Rig::new();
    rig.write(&rig.folded(30_000));
    let expected = contents(&rig.folded(35_000));
    let mut reading = changelogs(&rig, 35_000, 77);
    reading.take(&[PLACE]).unwrap();
    let shared = poll_until_live(&mut reading);
    assert_eq!(contents(&shared), expected);
    assert_eq!(reading.reader().assigned, [vec![], vec![30_000]]);
    // Given away and back, it goes on where it was.
    reading.park().unwrap();
    reading.take(&[PLACE]).unwrap();
    assert!(Arc::ptr_eq(&reading.held()[&PLACE], &shared));
    // A topic that was made anew since the process began.
    let mut reading = changelogs(&rig, 35_000, 78);
    reading.take(&[PLACE]).unwrap();
    assert_eq!(contents(&poll_until_live(&mut reading)), expected);
    assert_eq!(reading.reader().assigned, [[0]]);
}

/// What comes back, and what is claimed of a standby's.
#[test]
fn a_broker_that_is_away_for_a_moment_costs_nothing_that_is_warm() {
    let rig = Rig::new();
    let standbys = Arc::<Standbys>::default();
    let beside = (PLACE.0, PLACE.1 + 1);
    let mut reading = changelogs(&rig, 5_000, 77).with_standbys(&standbys);
    let copy = rig.folded(4_000);
    standbys.keep(PLACE, Arc::clone(&copy));
    reading.reader().away.set(Some(beside.1));
    reading.take(&[PLACE, beside]).unwrap_err();
    // Another rebalance comes meanwhile.
    reading.park().unwrap();
    reading.take(&[PLACE, beside]).unwrap();
    assert!(Arc::ptr_eq(&reading.held()[&PLACE], &copy));
    assert_eq!(copy.read().unwrap().position(), 4_000);
    // What is asked behind it failed: it is taken again.
    let other = Arc::clone(&reading.held()[&beside]);
    reading.take(&[PLACE, beside]).unwrap();
    assert!(Arc::ptr_eq(&reading.held()[&PLACE], &copy));
    assert!(Arc::ptr_eq(&reading.held()[&beside], &other));
    assert_eq!(
        contents(&poll_until_live(&mut reading)),
        contents(&rig.folded(5_000))
    );
}

#[test]
fn a_question_that_fails_costs_no_snapshot() {
    let rig = Rig::new();
    rig.write(&rig.folded(30_000));
    let mut reading = changelogs(&rig, 31_000, 77);
    reading.reader().nameless.set(true);
    reading.take(&[PLACE]).unwrap_err();
    reading.take(&[PLACE]).unwrap();
    poll_until_live(&mut reading);
    assert_eq!(reading.reader().assigned, [vec![], vec![30_000]]);
}

/// What is read back counts as merged already: a restore to an earlier end would pass it.
#[test]
fn what_a_task_commits_while_its_state_is_folded_anew_is_not_lost() {
    let rig = Rig::of(Kept::State);
    let mut reading = changelogs(&rig, 10, 77);
    reading.take(&[PLACE]).unwrap();
    poll_until_live(&mut reading);
    reading.reader_mut().damaged = true;
    reading.poll().unwrap();
    let restoring = Phase::Restoring { end: 10 };
    assert_eq!(reading.held()[&PLACE].read().unwrap().phase(), restoring);
    reading.reader_mut().end = 11;
    let (key, value) = change(10);
    reading
        .merge(std::iter::once(Change {
            map: PLACE.0,
            partition: PLACE.1,
            key: &key,
            value: value.as_deref(),
            timestamp: 0,
        }))
        .unwrap();
    reading.rebuild_now();
    let shared = poll_until_live(&mut reading);
    assert_eq!(contents(&shared), contents(&Rig::new().folded(11)));
}

/// Of an owner that was frozen: what its successor changed was read, and isn't in the contents.
#[test]
fn a_snapshot_begins_before_what_is_in_doubt() {
    let rig = Rig::of(Kept::State);
    let shared = rig.empty(0, 10);
    let fold = |shared: &SharedPartition, offset: i64| {
        let (key, value) = change(offset);
        let mut partition = shared.write().unwrap();
        partition.fold(offset, &key, value.as_deref()).unwrap();
    };
    (0..10).for_each(|offset| fold(&shared, offset));
    assert_eq!(shared.read().unwrap().phase(), Phase::Live);
    (10..15).for_each(|offset| fold(&shared, offset));
    rig.write(&shared);
    let loaded = rig.load(0, 15);
    let from = loaded.read().unwrap().position();
    (from..15).for_each(|offset| fold(&loaded, offset));
    assert_eq!(contents(&loaded), contents(&Rig::new().folded(15)));
}

#[test]
fn what_is_given_away_half_full_begins_anew() {
    let rig = Rig::new();
    rig.write(&rig.folded(30_000));
    let expected = contents(&rig.folded(31_000));
    let mut reading = changelogs(&rig, 31_000, 77);
    for polls in 0..20 {
        reading.take(&[PLACE]).unwrap();
        let before = Arc::clone(&reading.held()[&PLACE]);
        for _ in 0..polls {
            reading.poll().unwrap();
        }
        let was_loading = reading.is_loading();
        reading.park().unwrap();
        reading.take(&[PLACE]).unwrap();
        let same = Arc::ptr_eq(&before, &reading.held()[&PLACE]);
        assert_eq!(same, !was_loading);
        assert_eq!(contents(&poll_until_live(&mut reading)), expected);
        reading.park().unwrap();
        reading.take(&[]).unwrap();
    }
}

/// A changelog tells of removed keys for a day.
#[test]
fn who_slept_for_long_begins_anew() {
    let rig = Rig::new();
    let mut reading = changelogs(&rig, 5000, 77);
    reading.take(&[PLACE]).unwrap();
    let shared = poll_until_live(&mut reading);
    let life = || shared.read().unwrap().life();
    let first = life();
    // Awake, it asks where the changelog ends every few hours, and is not there as soon as it has asked.
    for hours in 1..40 {
        AHEAD.set(hours * HOUR);
        reading.poll().unwrap();
    }
    assert_eq!(life(), first);
    assert_eq!(reading.reader().assigned, [[0]]);
    // Asleep for a day.
    AHEAD.set(AHEAD.get() + 24 * HOUR);
    reading.reader_mut().end = 6000;
    reading.poll().unwrap();
    assert_ne!(life(), first);
    assert_eq!(stands(&shared), (0, 0), "nothing that was read on is left");
    poll_until_live(&mut reading);
    assert_eq!(contents(&shared), contents(&rig.folded(6000)));
    // And what was given away meanwhile does not come back.
    for (hours, is_kept) in [(1, true), (24, false)] {
        reading.park().unwrap();
        AHEAD.set(AHEAD.get() + hours * HOUR);
        reading.take(&[PLACE]).unwrap();
        assert_eq!(Arc::ptr_eq(&reading.held()[&PLACE], &shared), is_kept);
    }
}

#[test]
fn a_restore_may_take_longer_than_removals_are_kept() {
    let rig = Rig::new();
    let mut reading = changelogs(&rig, 40_000, 77);
    reading.take(&[PLACE]).unwrap();
    let shared = Arc::clone(&reading.held()[&PLACE]);
    let life = shared.read().unwrap().life();
    for hours in 1..=40 {
        AHEAD.set(hours * HOUR);
        reading.poll().unwrap();
    }
    let partition = shared.read().unwrap();
    assert_eq!((partition.life(), partition.phase()), (life, Phase::Live));
}

/// What an open transaction hides is not cleaned away, and need not have been read.
#[test]
fn an_open_transaction_makes_nothing_old() {
    let rig = Rig::new();
    let mut reading = changelogs(&rig, 5000, 77);
    reading.take(&[PLACE]).unwrap();
    let shared = poll_until_live(&mut reading);
    let life = shared.read().unwrap().life();
    reading.reader_mut().high_watermark = Some(9000);
    for hours in 1..40 {
        AHEAD.set(hours * HOUR);
        reading.poll().unwrap();
    }
    assert_eq!(shared.read().unwrap().life(), life);
}

#[test]
fn what_may_have_missed_removals_stands_in_no_snapshot() {
    let rig = Rig::new();
    AHEAD.set(-5 * HOUR);
    rig.write(&rig.folded(9000));
    assert_eq!(rig.files(), []);
    AHEAD.set(-4 * HOUR);
    rig.write(&rig.folded(9000));
    assert_eq!(rig.files().len(), 1);
}
