//! Snapshots on a real folder: written, loaded, refused, and cleaned up; and changelogs that are read on from them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use millstream_engine::pipeline::{Guarantee, Map};
use millstream_engine::state::restore::{MapPartition, Phase};

use super::loader::{Loader, Wanted};
use super::shelf::Named;
use super::writer::Rounds;
use super::*;
use crate::changelogs::Changelogs;
use crate::cluster::{Read, ReadPlace, Reader};
use crate::directory::{Directory, SharedPartition};
use crate::map_memory::MapMemory;
use crate::standby::Standbys;

const PLACE: MapPlace = (MapId(0), 0);
const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: i64 = 3_600_000;

thread_local! {
    /// By how much a test is ahead of its time.
    static AHEAD: Cell<i64> = const { Cell::new(0) };
}

/// The time of the partitions. Files are dated by the real one.
fn later() -> i64 {
    now() + AHEAD.get()
}

struct Rig {
    folder: PathBuf,
    snapshots: Arc<Snapshots>,
    memory: Arc<MapMemory>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Rig {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-snapshots-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let pipeline = Pipeline {
            name: "p".into(),
            guarantee: Guarantee::ExactlyOnce,
            interval: Duration::ZERO,
            sources: Vec::new(),
            topics: Vec::new(),
            steps: Vec::new(),
            sinks: Vec::new(),
            maps: vec![Map {
                name: "users".into(),
                kept: Kept::Changelog,
                replicated: false,
                index: Vec::new(),
            }],
        };
        let snapshots = Snapshots {
            folder: folder_of(&folder, "cluster").join("p"),
            interval: Duration::ZERO,
            pipeline: "p".into(),
            maps: vec![Some(MapTopic {
                map: "users".into(),
                partitions: 1,
                id: 77,
                retention: DAY,
            })],
            counts: counts(&pipeline),
        };
        let memory = MapMemory::new(&pipeline, 64 << 20, 1, 1);
        let memory = memory.forgetting(vec![Some(DAY)]).at_time(later);
        let memory = Arc::new(memory);
        let snapshots = Arc::new(snapshots);
        Self {
            folder,
            snapshots,
            memory,
        }
    }

    fn shelf(&self) -> Shelf {
        self.snapshots.shelf(PLACE).unwrap()
    }

    fn files(&self) -> Vec<Named> {
        self.shelf().files().unwrap()
    }

    fn empty(&self, start: i64, end: i64) -> SharedPartition {
        Arc::new(RwLock::new(self.memory.partition(PLACE.0, start, end)))
    }

    /// A live partition that folded this much of the log.
    fn folded(&self, offsets: i64) -> SharedPartition {
        let shared = self.empty(0, 0);
        for offset in 0..offsets {
            let (key, value) = change(offset);
            let mut partition = shared.write().unwrap();
            partition.fold(offset, &key, value.as_deref()).unwrap();
        }
        shared
    }

    /// One round of the writer. Each begins in a millisecond of its own.
    fn write(&self, shared: &SharedPartition) {
        std::thread::sleep(Duration::from_millis(2));
        let directory = Directory::default();
        directory.add([(&PLACE, shared)]);
        Rounds::new(Arc::clone(&self.snapshots)).round(&directory);
    }

    fn load(&self, start: i64, end: i64) -> SharedPartition {
        let shared = self.empty(start, end);
        let wanted = Wanted {
            place: PLACE,
            shared: Arc::clone(&shared),
            start,
            end,
        };
        let loader = Loader::start(&self.snapshots, &self.memory, vec![wanted]).unwrap();
        until(|| loader.is_finished());
        assert_eq!(loader.take_done(), [(PLACE, Ok(()))]);
        shared
    }

    fn counts(&self) -> [u64; 4] {
        let counts = self.snapshots.counts(PLACE);
        let all = [
            &counts.written,
            &counts.failed,
            &counts.refused,
            &counts.restored,
        ];
        all.map(|count| count.load(Ordering::Relaxed))
    }
}

/// Every third takes a key away that an earlier one brought.
fn change(offset: i64) -> (Vec<u8>, Option<Vec<u8>>) {
    let value = format!("value of {offset}").into_bytes();
    match offset % 3 {
        2 => ((offset - 2).to_le_bytes().to_vec(), None),
        _ => ((offset % 40_000).to_le_bytes().to_vec(), Some(value)),
    }
}

fn contents(shared: &SharedPartition) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let partition = shared.read().unwrap();
    let entries = partition.contents().entries();
    let slots = (0..entries.end()).filter_map(|slot| entries.get(slot));
    slots
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect()
}

fn stands(shared: &SharedPartition) -> (i64, usize) {
    let partition: &MapPartition = &shared.read().unwrap();
    (partition.position(), partition.contents().len())
}

fn until(done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_was_written_is_loaded() {
    let rig = Rig::new();
    let shared = rig.folded(9000);
    rig.write(&shared);
    let [file] = &rig.files()[..] else {
        panic!("one file")
    };
    assert_eq!(file.from, 9000);
    let loaded = rig.load(0, 9500);
    assert_eq!(contents(&loaded), contents(&shared));
    assert_eq!(
        loaded.read().unwrap().phase(),
        Phase::Restoring { end: 9500 }
    );
    let entries = stands(&loaded);
    assert_eq!(entries.0, 9000);
    assert_eq!(rig.counts(), [1, 0, 0, entries.1 as u64]);
    // At the very end of its changelog it is the fold already.
    assert_eq!(rig.load(0, 9000).read().unwrap().phase(), Phase::Live);
    // Too little was changed for another one; one that is being restored has none.
    rig.write(&rig.folded(12_000));
    rig.write(&rig.empty(0, 5));
    assert_eq!(rig.files().len(), 1);
    for offsets in [20_000, 31_000, 42_000] {
        rig.write(&rig.folded(offsets));
    }
    let from: Vec<i64> = rig.files().iter().map(|file| file.from).collect();
    assert_eq!(from, [42_000, 31_000], "the newest two stay");
}

#[test]
fn damaged_files_are_set_aside_and_older_ones_taken() {
    let rig = Rig::new();
    for offsets in [100, 11_000] {
        rig.write(&rig.folded(offsets));
    }
    let newest = rig.files()[0].path.clone();
    let mut bytes = fs::read(&newest).unwrap();
    let last = bytes.len() - 30;
    bytes[last] ^= 4;
    fs::write(&newest, &bytes).unwrap();
    let found = report::look(&rig.folder, "p").unwrap();
    let damaged: Vec<bool> = found.iter().map(report::Found::is_damaged).collect();
    assert_eq!(damaged, [true, false]);

    let loaded = rig.load(0, 11_000);
    assert_eq!(contents(&loaded), contents(&rig.folded(100)));
    assert_eq!(stands(&loaded).0, 100);
    assert_eq!(rig.shelf().rejected().unwrap().len(), 1);
    let [older] = &rig.files()[..] else {
        panic!("one file is left")
    };
    fs::write(&older.path, b"nonsense").unwrap();
    let empty = rig.load(0, 11_000);
    assert_eq!(stands(&empty), (0, 0));
    assert_eq!(rig.files(), []);
    let rejected = rig.shelf().rejected().unwrap();
    assert_eq!(rejected.len(), 1, "the last one only");
    assert_eq!(fs::read(&rejected[0]).unwrap(), b"nonsense");
    assert_eq!(rig.counts()[2], 2);
}

#[test]
fn snapshots_of_other_changelogs_are_not_taken() {
    let refused = |start, end, change: fn(&mut MapTopic)| {
        let mut rig = Rig::new();
        rig.write(&rig.folded(100));
        let snapshots = Arc::get_mut(&mut rig.snapshots).unwrap();
        change(snapshots.maps[0].as_mut().unwrap());
        let loaded = rig.load(start, end);
        assert_eq!(stands(&loaded), (start, 0));
        assert_eq!(rig.files(), []);
        rig.shelf().rejected().unwrap().len()
    };
    assert_eq!(refused(0, 100, |topic| topic.id = 78), 1);
    assert_eq!(refused(0, 100, |topic| topic.partitions = 2), 1);
    assert_eq!(refused(0, 99, |_| {}), 1, "beyond the end");
    assert_eq!(refused(101, 200, |_| {}), 1, "below the start");
    assert_eq!(refused(0, 100, |topic| topic.retention = Duration::ZERO), 0);
}

#[test]
fn nothing_ends_because_of_the_disk() {
    let rig = Rig::new();
    fs::create_dir_all(&rig.folder).unwrap();
    // A file where a folder should be.
    fs::write(rig.folder.join("snapshots"), b"").unwrap();
    let shared = rig.folded(10);
    rig.write(&shared);
    assert_eq!(rig.counts()[..2], [0, 1]);
    assert_eq!(stands(&rig.load(0, 10)), (0, 0));
    fs::remove_file(rig.folder.join("snapshots")).unwrap();
    rig.write(&shared);
    assert_eq!(rig.counts()[..2], [1, 1]);
}

#[test]
fn leftovers_go() {
    let rig = Rig::new();
    rig.write(&rig.folded(10));
    let shelf = rig.shelf();
    let draft = shelf.draft(1, 2).unwrap();
    drop(draft);
    let folder = rig.files()[0].path.parent().unwrap().to_owned();
    assert_eq!(
        fs::read_dir(&folder).unwrap().count(),
        1,
        "a draft given up is gone"
    );
    for (name, age) in [("1-1.9.draft", 7200), ("2-2.9.draft", 60)] {
        let file = fs::File::create(folder.join(name)).unwrap();
        let touched = SystemTime::now() - Duration::from_secs(age);
        file.set_modified(touched).unwrap();
    }
    fs::write(
        folder.join(format!("{}-5.snapshot", now() + 3_600_000)),
        b"",
    )
    .unwrap();
    fs::write(folder.join("0000000000005-5.snapshot"), b"").unwrap();
    Rounds::new(Arc::clone(&rig.snapshots)).sweep();
    let names = fs::read_dir(&folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().any(|name| name == "2-2.9.draft"), "{names:?}");
    // One that nobody can have begun is kept for somebody to look at.
    assert!(
        names
            .iter()
            .any(|name| name.ends_with("-5.snapshot.rejected")),
        "{names:?}"
    );
}

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
