//! Snapshots on a real folder: written, loaded, refused, and cleaned up.

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
use crate::directory::{Directory, SharedPartition};
use crate::map_memory::MapMemory;

mod reading;

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
        Self::of(Kept::Changelog)
    }

    fn of(kept: Kept) -> Self {
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
                kept,
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
