//! Names and what is behind them: rotation, opening anew, locks, and what is no file.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::*;

/// Writes and flushes one record.
fn put<D: Disk>(sink: &mut FileSink<D>, number: usize) {
    sink.write(&orders(), &numbered(number, 1)).unwrap();
    sink.flush().unwrap();
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_full_file_is_put_aside_under_the_next_number() {
    let (directory, path) = place();
    fs::write(directory.path().join("orders.jsonl.7.gz"), "").unwrap();
    let mut sink = small(Faulty::default(), &path, rotation(8, None));
    (0..5).for_each(|number| put(&mut sink, number));
    // 4 + 5 bytes are full, then 6 + 7, and 8 alone.
    assert_eq!(
        names(&directory),
        ["orders.jsonl", "orders.jsonl.10", "orders.jsonl.7.gz", "orders.jsonl.8", "orders.jsonl.9"]
    );
    assert_eq!(all_of(&path), lines(5));
    assert_eq!(read(&directory.path().join("orders.jsonl.8")), lines(2));
    // A number is not used again, even if its file was fetched meanwhile.
    fs::remove_file(directory.path().join("orders.jsonl.10")).unwrap();
    put(&mut sink, 5);
    assert!(names(&directory).contains(&"orders.jsonl.11".to_owned()));
}

#[test]
fn a_file_is_not_full_below_its_size() {
    let (directory, path) = place();
    let mut sink = small(Faulty::default(), &path, rotation(5, None));
    put(&mut sink, 0);
    assert_eq!(names(&directory), ["orders.jsonl"], "4 bytes of 5");
    let (directory, path) = place();
    let mut sink = small(Faulty::default(), &path, rotation(4, None));
    put(&mut sink, 0);
    assert_eq!(names(&directory), ["orders.jsonl", "orders.jsonl.1"], "4 bytes of 4");
}

#[test]
fn only_so_many_are_kept() {
    let (directory, path) = place();
    fs::write(directory.path().join("orders.jsonl.old"), "").unwrap();
    let mut sink = small(Faulty::default(), &path, rotation(1, Some(2)));
    (0..12).for_each(|number| put(&mut sink, number));
    // The oldest by number, not by name: 9 is older than 10.
    assert_eq!(names(&directory), ["orders.jsonl", "orders.jsonl.11", "orders.jsonl.12", "orders.jsonl.old"]);
}

#[test]
fn a_rotation_that_fails_is_tried_again_later() {
    let (directory, path) = place();
    let disk = Faulty::default();
    let mut sink = small(disk.clone(), &path, rotation(20, None));
    sink.write(&orders(), &numbered(0, 4)).unwrap();
    // The buffer goes out in two writes; then sync, and sync of the directory.
    disk.decide(3, Fate::Fail(ErrorKind::PermissionDenied));
    sink.flush().unwrap();
    assert_eq!(disk.calls().last(), Some(&"rename"));
    assert_eq!(read(&path), lines(4));
    put(&mut sink, 4);
    assert_eq!(read(&path), "", "put aside with the next record");
    assert_eq!(read(&directory.path().join("orders.jsonl.1")), lines(5));
}

#[test]
fn a_rotation_leaves_alone_what_somebody_else_put_there() {
    let (directory, path) = place();
    let mut sink = small(Faulty::default(), &path, rotation(10, None));
    put(&mut sink, 0);
    fs::rename(&path, directory.path().join("moved")).unwrap();
    fs::write(&path, "foreign\n").unwrap();
    sink.write(&orders(), &numbered(1, 2)).unwrap();
    sink.flush().unwrap();
    assert_eq!(read(&directory.path().join("moved")), lines(3));
    assert_eq!((names(&directory), read(&path)), (vec!["moved".into(), "orders.jsonl".into()], "foreign\n".into()));
    put(&mut sink, 3);
    assert_eq!(read(&directory.path().join("orders.jsonl.1")), "foreign\n".to_owned() + &value(3) + "\n");
}

#[test]
fn the_old_name_comes_back_if_no_new_file_can_be_made() {
    let (directory, path) = place();
    let disk = Faulty::default();
    let mut sink = small(disk.clone(), &path, rotation(4, None));
    disk.decide(4, Fate::Fail(ErrorKind::StorageFull));
    put(&mut sink, 0);
    assert_eq!(disk.calls()[1..], ["write", "sync", "sync_directory", "rename", "open", "rename"]);
    assert_eq!((names(&directory), read(&path)), (vec!["orders.jsonl".to_owned()], lines(1)));
    put(&mut sink, 1);
    assert_eq!((read(&path), all_of(&path)), (String::new(), lines(2)));
}

#[test]
fn behind_a_symbolic_link_the_file_is_rotated_and_the_link_stays() {
    let (directory, link) = place();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path().join("data"), &link).unwrap();
    let mut sink = small(Faulty::default(), &link, rotation(1, None));
    (0..2).for_each(|number| put(&mut sink, number));
    assert_eq!(names(&elsewhere), ["data", "data.1", "data.2"]);
    assert_eq!(names(&directory), ["orders.jsonl"]);
    assert!(link.is_symlink());
}

#[test]
fn after_a_rename_lines_go_to_the_old_file_until_it_is_opened_anew() {
    let (directory, path) = place();
    let moved = directory.path().join("moved");
    let mut sink = small(Faulty::default(), &path, None);
    put(&mut sink, 0);
    fs::rename(&path, &moved).unwrap();
    put(&mut sink, 1);
    assert_eq!((read(&moved), path.exists()), (lines(2), false));
    sink.reopen().unwrap();
    put(&mut sink, 2);
    assert_eq!((read(&moved), read(&path)), (lines(2), value(2) + "\n"));
    // Nothing was renamed: nothing to do, and above all no quarrel with its own lock.
    sink.reopen().unwrap();
    put(&mut sink, 3);
    assert_eq!(read(&path), value(2) + "\n" + &value(3) + "\n");
}

#[test]
fn the_old_file_stays_if_the_new_one_cannot_be_opened() {
    let (directory, path) = place();
    let moved = directory.path().join("moved");
    let mut sink = small(Faulty::default(), &path, None);
    put(&mut sink, 0);
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    let text = sink.reopen().unwrap_err();
    assert!(text.contains("orders.jsonl: is a directory") && text.ends_with("the old file is written on"), "{text}");
    put(&mut sink, 1);
    assert_eq!(read(&moved), lines(2));
}

#[test]
fn lines_that_are_not_flushed_are_not_left_behind() {
    let (directory, path) = place();
    let mut sink = small(Faulty::default(), &path, None);
    sink.write(&orders(), &numbered(0, 1)).unwrap();
    fs::rename(&path, directory.path().join("moved")).unwrap();
    assert!(sink.reopen().unwrap_err().contains("between a write and its flush"));
    sink.flush().unwrap();
    assert_eq!(read(&directory.path().join("moved")), lines(1));
}

#[test]
fn what_went_to_a_deleted_file_is_given_again() {
    let (_directory, path) = place();
    let mut sink = small(Faulty::default(), &path, None);
    put(&mut sink, 0);
    fs::remove_file(&path).unwrap();
    sink.write(&orders(), &numbered(0, 3)).unwrap();
    let text = sink.flush().unwrap_err();
    assert!(text.contains("orders.jsonl: was deleted while it was written"), "{text}");
    sink.write(&orders(), &numbered(0, 3)).unwrap();
    sink.flush().unwrap();
    assert_eq!(read(&path), lines(3));
}

#[test]
fn a_deleted_file_is_made_anew_on_request() {
    let (_directory, path) = place();
    let mut sink = small(Faulty::default(), &path, None);
    put(&mut sink, 0);
    fs::remove_file(&path).unwrap();
    sink.reopen().unwrap();
    put(&mut sink, 0);
    assert_eq!(read(&path), lines(1));
}

#[test]
fn a_file_has_one_writer() {
    let (_directory, path) = place();
    let first = FileSink::open(&path, Format::Raw, None).unwrap();
    let text = FileSink::open(&path, Format::Raw, None).unwrap_err().to_string();
    assert!(text.contains("orders.jsonl: is already written by another process"), "{text}");
    drop(first);
    FileSink::open(&path, Format::Raw, None).unwrap();
}

#[test]
fn what_is_no_file_is_refused_in_words() {
    let (directory, path) = place();
    let says = |path: &Path, expected: &str| {
        let text = FileSink::open(path, Format::Raw, None).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    };
    says(directory.path(), "is a directory");
    says(&directory.path().join("none/orders.jsonl"), "none does not exist; create it");
    fs::write(&path, "").unwrap();
    says(&path.join("orders.jsonl"), "correct the path");
    let socket = directory.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    says(&socket, "is a socket");
    let fifo = directory.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    says(&fifo, "is a named pipe");
}

#[test]
fn errors_name_the_file_and_the_remedy() {
    let (_directory, path) = place();
    for (kind, expected) in [
        (ErrorKind::PermissionDenied, "let the worker's user read and write the file"),
        (ErrorKind::ReadOnlyFilesystem, "mount that file system for writing"),
    ] {
        let disk = Faulty::with([(0, Fate::Fail(kind))]);
        let text = FileSink::with(disk, &path, Format::Raw, None, 16).unwrap_err().to_string();
        assert!(text.contains("orders.jsonl: open failed: ") && text.contains(expected), "{text}");
    }
}

/// A directory without the right to read it can't be synced, and is no reason to stop.
#[test]
fn a_directory_that_cannot_be_synced_is_only_a_warning() {
    for (kind, fails) in [(ErrorKind::PermissionDenied, false), (ErrorKind::Other, true)] {
        let (_directory, path) = place();
        let mut sink = small(Faulty::with([(3, Fate::Fail(kind))]), &path, None);
        sink.write(&orders(), &numbered(0, 1)).unwrap();
        assert_eq!(sink.flush().is_err(), fails);
        assert_eq!(read(&path), if fails { String::new() } else { lines(1) });
    }
}
