//! The tier on a real disk: what is there again after a restart, and what is not.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::*;

const SIZE: u64 = LEAST;
const MAX_OBJECT: u64 = 1 << 20;

fn head(url: &str) -> Head {
    Head {
        status: 200,
        fields: vec![("Content-Type".into(), "text/plain".into())],
        stored_at: now() - 1000,
        born: now(),
        fresh_until: now() + 60_000,
        stale_while_revalidate: 0,
        stale_if_error: 0,
        only_when_cut_off: false,
        may_be_stale: true,
        vary: vec![],
        variance: None,
        url: Bytes::copy_from_slice(url.as_bytes()),
        tags: vec!["red".into()],
    }
}

/// A body that says whose it is, at each of its places.
fn body(key: u128, length: usize) -> Bytes {
    let word = format!("{key:07}.");
    word.bytes().cycle().take(length).collect()
}

async fn open(path: &Path) -> Disk {
    Disk::open(path, SIZE, MAX_OBJECT).await.unwrap()
}

/// Opens it again, as another process would.
async fn restart(disk: Disk, path: &Path) -> Disk {
    disk.close().await;
    drop(disk);
    open(path).await
}

/// Puts so many objects of this length, waiting for the writer.
async fn fill(disk: &Disk, keys: std::ops::Range<u128>, length: usize) {
    for key in keys {
        disk.put(key, &head("https://a/"), body(key, length));
        if key % 4 == 3 {
            disk.engine.storage().wait().await;
        }
    }
    disk.engine.storage().wait().await;
}

/// How many of these are found; each must have the body that it was put with.
async fn found(disk: &Disk, keys: std::ops::Range<u128>, length: usize) -> usize {
    let mut count = 0;
    for key in keys {
        if let Some(found) = disk.get(key).await {
            assert_eq!(found.body, body(key, length).into());
            count += 1;
        }
    }
    count
}

fn purge(what: What, soft: bool) -> Purge {
    Purge { what, at: now(), soft }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_found_at_once_and_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let disk = open(folder.path()).await;
    let stored = head("https://a/1");
    disk.put(1, &stored, body(1, 5000));
    disk.put(2, &stored, Bytes::new());
    let expected = Found { head: stored.clone(), body: body(1, 5000).into(), stale: false };
    assert_eq!(disk.get(1).await, Some(expected.clone()), "before or after it is written");
    let disk = restart(disk, folder.path()).await;
    assert_eq!(disk.get(1).await, Some(expected));
    assert_eq!(disk.get(2).await.unwrap().body, Bytes::new().into());
    assert_eq!(disk.get(3).await, None);
    let numbers = disk.numbers();
    assert_eq!((numbers.hits, numbers.misses, numbers.refused), (2, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_of_a_key_is_the_one_that_is_found() {
    let folder = TempDir::new().unwrap();
    let disk = open(folder.path()).await;
    // While one is written the next one waits, and the next but one: none of them may be found in place of the last.
    for length in 1..=200 {
        disk.put(1, &head("https://a/"), body(1, length));
        assert_eq!(disk.get(1).await.map(|found| found.body.len()), Some(length));
        tokio::task::yield_now().await;
        assert_eq!(disk.get(1).await.map(|found| found.body.len()), Some(length));
    }
    let disk = restart(disk, folder.path()).await;
    assert_eq!(disk.get(1).await.unwrap().body.len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_stays_away_after_a_restart_and_what_comes_later_stays() {
    let folder = TempDir::new().unwrap();
    let disk = open(folder.path()).await;
    fill(&disk, 0..8, 1000).await;
    disk.remove(3);
    disk.put(4, &head("https://a/"), body(4, 1000));
    disk.remove(4);
    assert_eq!(disk.get(4).await, None, "also while it waits to be written");
    disk.put(4, &Head { stored_at: now() + 1, ..head("https://a/") }, body(4, 1000));
    let disk = restart(disk, folder.path()).await;
    assert_eq!(disk.get(3).await, None);
    assert_eq!(found(&disk, 0..8, 1000).await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_holds_for_what_is_on_disk_and_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let disk = open(folder.path()).await;
    for (key, url) in [(1, "https://a/1"), (2, "https://a/2"), (3, "https://b/3"), (4, "https://c/4")] {
        disk.put(key, &head(url), body(key, 100));
    }
    disk.purge(purge(What::Url("https://a/1".into()), false)).await.unwrap();
    disk.purge(purge(What::Host("b".into()), false)).await.unwrap();
    disk.purge(purge(What::Prefix("https://c/".into()), true)).await.unwrap();
    for disk in [&disk, &restart_in_mid_air(&disk, folder.path()).await.1] {
        assert_eq!(disk.get(1).await, None);
        assert!(!disk.get(2).await.unwrap().stale);
        assert_eq!(disk.get(3).await, None);
        assert!(disk.get(4).await.unwrap().stale);
    }
}

/// A copy of the folder as a crash would leave it, and the tier in it.
async fn restart_in_mid_air(disk: &Disk, path: &Path) -> (TempDir, Disk) {
    disk.engine.storage().wait().await;
    let copy = TempDir::new().unwrap();
    fs::create_dir(copy.path().join("objects")).unwrap();
    for below in ["", "objects"] {
        for entry in fs::read_dir(path.join(below)).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), copy.path().join(below).join(entry.file_name())).unwrap();
            }
        }
    }
    let disk = open(copy.path()).await;
    (copy, disk)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_by_tag_and_one_of_everything_hold() {
    let folder = TempDir::new().unwrap();
    let disk = open(folder.path()).await;
    fill(&disk, 0..2, 100).await;
    disk.purge(purge(What::Tag("red".into()), false)).await.unwrap();
    assert_eq!(found(&disk, 0..2, 100).await, 0);
    let disk = restart(disk, folder.path()).await;
    let untagged = Head { tags: vec![], stored_at: now(), ..head("https://a/") };
    disk.put(9, &untagged, body(9, 100));
    assert_eq!(found(&disk, 9..10, 100).await, 1);
    disk.clear();
    assert_eq!(found(&disk, 9..10, 100).await, 0);
    let disk = restart(disk, folder.path()).await;
    assert_eq!(found(&disk, 0..10, 100).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_purges_that_cannot_be_read_counts_as_a_purge_of_everything() {
    let folder = TempDir::new().unwrap();
    for damage in [|path: &Path| fs::write(path, b"ptcp").unwrap(), |path: &Path| fs::remove_file(path).unwrap()] {
        let disk = open(folder.path()).await;
        fill(&disk, 0..4, 100).await;
        assert_eq!(found(&disk, 0..4, 100).await, 4);
        disk.close().await;
        drop(disk);
        damage(&folder.path().join("purges"));
        let disk = open(folder.path()).await;
        assert_eq!(found(&disk, 0..4, 100).await, 0);
        let after = Head { stored_at: now(), ..head("https://a/") };
        disk.put(1, &Head { stored_at: after.stored_at + 1, ..after }, body(1, 100));
        drop(restart(disk, folder.path()).await);
        fs::remove_dir_all(folder.path().join("objects")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_or_not_yet_stored_is_a_miss() {
    let folder = TempDir::new().unwrap();
    let disk = open(folder.path()).await;
    disk.put(1, &Head { stored_at: now() - MOST_AGE, ..head("https://a/") }, body(1, 100));
    disk.put(2, &Head { stored_at: now() + 60_000, ..head("https://a/") }, body(2, 100));
    assert_eq!(found(&disk, 1..3, 100).await, 0);
    assert_eq!(disk.numbers().refused, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_a_miss_and_never_another_body() {
    let folder = TempDir::new().unwrap();
    for (step, flip) in [(100_003, true), (4096 * 7, true), (0, false)] {
        let disk = open(folder.path()).await;
        fill(&disk, 0..200, 9000).await;
        disk.close().await;
        drop(disk);
        for entry in fs::read_dir(folder.path().join("objects")).unwrap().map(Result::unwrap) {
            damage(&entry.path(), step, flip);
        }
        let disk = open(folder.path()).await;
        let left = found(&disk, 0..200, 9000).await;
        assert!(left < 200, "{left} of 200 are left, so nothing was damaged");
    }
}

/// Flips bytes this far apart, or cuts the file in its middle.
fn damage(path: &Path, step: usize, flip: bool) {
    let mut bytes = fs::read(path).unwrap();
    if flip {
        (step / 2..bytes.len()).step_by(step).for_each(|at| bytes[at] ^= 0x55);
    } else {
        bytes.truncate(bytes.len() / 2 + 77);
    }
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_never_grows_beyond_its_size_and_the_latest_objects_are_in_it() {
    let folder = TempDir::new().unwrap();
    let disk = open(folder.path()).await;
    fill(&disk, 0..200, 250_000).await;
    let files = [folder.path().to_owned(), folder.path().join("objects")].map(|path| fs::read_dir(path).unwrap());
    let taken = files.into_iter().flatten().map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>();
    assert!(taken <= SIZE, "{taken}");
    let disk = restart(disk, folder.path()).await;
    assert_eq!(found(&disk, 0..100, 250_000).await, 0, "50 MB do not fit into 32 MiB");
    assert!(found(&disk, 100..200, 250_000).await > 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_without_an_empty_file_is_still_written_to() {
    let folder = TempDir::new().unwrap();
    let disk = open(folder.path()).await;
    fill(&disk, 0..120, 250_000).await;
    let blocks = disk.layout.blocks;
    disk.close().await;
    drop(disk);
    // As a process leaves it that is killed at the wrong moment: no file is empty.
    let objects = folder.path().join("objects");
    let file = |block: usize| objects.join(format!("foyer-storage-direct-fs-{block:08}"));
    let empty = |path: &PathBuf| fs::read(path).unwrap()[..4096].iter().all(|byte| *byte == 0);
    let full = (0..blocks).map(file).find(|path| !empty(path)).unwrap();
    for path in (0..blocks).map(file).filter(empty) {
        fs::copy(&full, path).unwrap();
    }
    let disk = open(folder.path()).await;
    disk.put(500, &head("https://a/"), body(500, 1000));
    disk.close().await;
    drop(disk);
    assert_eq!(found(&open(folder.path()).await, 500..501, 1000).await, 1, "it was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_writer_has_no_room_for_is_dropped_and_counted() {
    let folder = TempDir::new().unwrap();
    let disk = open(folder.path()).await;
    disk.put(0, &head("https://a/"), body(0, 100));
    disk.put(0, &head("https://a/"), body(0, 3 << 20));
    assert_eq!(disk.numbers().too_large, 1);
    assert_eq!(disk.get(0).await.map(|found| found.body.len()), None, "what it replaces is not the latest any more");
    let waits = disk.waiting.clone();
    let held = Entry::new(9, Bytes::new(), body(1, disk.layout.buffer - 8192).into(), &waits).unwrap();
    disk.put(2, &head("https://a/"), body(2, 20_000));
    assert_eq!((disk.numbers().dropped, disk.get(2).await), (1, None));
    drop(held);
    disk.put(2, &head("https://a/"), body(2, 20_000));
    assert_eq!(found(&disk, 2..3, 20_000).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_loses_nothing_that_was_taken() {
    let folder = TempDir::new().unwrap();
    let disk = open(folder.path()).await;
    // Faster than it can be written: some are dropped. Those that are not must all be there.
    (0..400).for_each(|key| disk.put(key, &head("https://a/"), body(key, 30_000)));
    disk.engine.storage().wait().await;
    let numbers = disk.numbers();
    assert_eq!(numbers.stored + numbers.dropped, 400);
    assert_eq!(found(&disk, 0..400, 30_000).await as u64, numbers.stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_size_begins_anew() {
    let folder = TempDir::new().unwrap();
    let disk = open(folder.path()).await;
    fill(&disk, 0..4, 100).await;
    drop(disk);
    let disk = Disk::open(folder.path(), SIZE + (4 << 20), MAX_OBJECT).await.unwrap();
    assert_eq!(found(&disk, 0..4, 100).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_one_user_at_a_time() {
    let folder = TempDir::new().unwrap();
    let disk = open(folder.path()).await;
    let second = Disk::open(folder.path(), SIZE, MAX_OBJECT).await.map(drop);
    assert!(matches!(second, Err(DiskError::InUse { .. })), "{second:?}");
    drop(disk);
    open(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_and_a_disk_without_room_are_told_with_help() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), b"").unwrap();
    let error = Disk::open(&folder.path().join("file/cache"), SIZE, MAX_OBJECT).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("must be one that this user can write to"), "{error}");
    let error = Disk::open(&folder.path().join("full"), 1 << 60, MAX_OBJECT).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("make room, or `cache.disk.size` smaller"), "{error}");
    assert!(fs::read_dir(folder.path().join("full/objects")).unwrap().next().is_none(), "the disk is left as it was");
    let error = Disk::open(&folder.path().join("small"), SIZE - 1, MAX_OBJECT).await.map(drop).unwrap_err();
    assert_eq!(error.to_string(), "`cache.disk.size` is 33554431 bytes; it must be at least 32 MiB");
}

#[test]
fn every_layout_has_room_for_its_largest_object_and_few_files() {
    for size in [LEAST, 64 << 20, 1 << 30, 10 << 30, 1 << 40] {
        for object in [0, 1 << 20, 8 << 20, 100 << 20, u64::MAX] {
            let layout = Layout::new(size, object).unwrap();
            assert!(layout.blocks >= 8 && layout.blocks <= 1024, "{layout:?}");
            assert!((layout.blocks * layout.block) as u64 <= size - (8 << 20), "{layout:?}");
            assert!(layout.buffer.is_multiple_of(4096) && layout.most() < layout.block, "{layout:?}");
            assert!(layout.most() as u64 > object.min(size / 20), "{layout:?} {object}");
        }
    }
    assert_eq!(Layout::new(10 << 30, 8 << 20).unwrap().buffer, (8 << 20) + (1 << 16));
}

/// Names the folder to the process that is to be killed.
const CHILD: &str = "PORTCULLIS_TEST_DISK";

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_while_it_writes_leaves_whole_objects_only() {
    if let Some(path) = std::env::var_os(CHILD) {
        return write_until_killed(Path::new(&path)).await;
    }
    let folder = TempDir::new().unwrap();
    let own = "cache::disk::tests::a_process_that_is_killed_while_it_writes_leaves_whole_objects_only";
    for written in [20, 60] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([own, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.filter(|line| line.starts_with("written")).take(written).count(), written);
        child.kill().unwrap();
        child.wait().unwrap();
        let disk = open(folder.path()).await;
        assert!(found(&disk, 0..10_000, 20_000).await >= written, "what was written is there");
        assert_eq!(disk.get(u128::MAX).await, None, "what was purged is not");
    }
}

async fn write_until_killed(path: &Path) {
    let disk = open(path).await;
    disk.put(u128::MAX, &head("https://purged/"), body(0, 10));
    disk.engine.storage().wait().await;
    disk.purge(purge(What::Url("https://purged/".into()), false)).await.unwrap();
    for key in 0..10_000 {
        disk.put(key, &head("https://a/"), body(key, 20_000));
        disk.engine.storage().wait().await;
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nwritten {key}").and_then(|()| out.flush()).unwrap();
    }
}
