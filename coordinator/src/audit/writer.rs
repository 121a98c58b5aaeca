//! The one writer: a thread that appends lines, syncs each second, and rotates by size.
//!
//! Invariants: a line is whole or not there; a disk that fails stops nothing and is an error in the log once, until it
//! takes lines again.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, oneshot};

use super::{Entry, Event, State};

/// The newest file; older ones have a number behind it, `audit.jsonl.1` the youngest of them.
const NAME: &str = "audit.jsonl";

/// A file's size at which the next one begins, in bytes, and how many there are: 128 MiB in all.
const FILE_AT_MOST: u64 = 16 << 20;
const FILES: u32 = 8;

/// How often is synced. What a death of the machine may take is so old at most.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// How often what was only counted is written.
const COUNTS_EVERY: Duration = Duration::from_secs(10);

/// What the two lines say that hold a number only.
const HELD_BACK: &str = "refusals that were not written one by one: too many of their kind";
const LOST: &str =
    "entries that are missing here: the disk of the audit log was too full or too slow for them";

/// Lines that a follower may be behind.
const BEHIND_AT_MOST: usize = 1024;

/// What the writer is asked for.
pub(super) enum Order {
    /// Append a line.
    Write(String),
    /// Show what there is.
    Look(oneshot::Sender<Snapshot>),
    /// Have everything before on the disk.
    Sync(oneshot::Sender<()>),
}

/// The log at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The oldest first, open: rotation takes none of them away. With the bytes that count.
    pub(super) files: Vec<(File, u64)>,
    /// Every line after that.
    pub(super) news: broadcast::Receiver<Arc<str>>,
}

struct Writer {
    dir: PathBuf,
    open: Option<Open>,
    news: broadcast::Sender<Arc<str>>,
    state: Arc<State>,
}

struct Open {
    file: File,
    length: u64,
    synced: bool,
}

/// Starts the writer. It ends when nobody can give it orders any more.
pub(super) fn spawn(dir: PathBuf, orders: Receiver<Order>, state: Arc<State>) -> io::Result<()> {
    let writer = Writer {
        dir,
        open: None,
        news: broadcast::channel(BEHIND_AT_MOST).0,
        state,
    };
    std::thread::Builder::new()
        .name("audit".to_owned())
        .spawn(move || writer.run(&orders))
        .map(drop)
}

impl Writer {
    fn run(mut self, orders: &Receiver<Order>) {
        let (mut sync_at, mut counts_at) = (Instant::now(), Instant::now() + COUNTS_EVERY);
        loop {
            let order = orders.recv_timeout(SYNC_EVERY);
            match order {
                Ok(Order::Write(line)) => self.write(line),
                Ok(Order::Look(answer)) => {
                    // Who asked may have gone.
                    let _ = answer.send(self.look());
                }
                Ok(Order::Sync(answer)) => {
                    self.write_counts();
                    self.sync();
                    let _ = answer.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= counts_at {
                counts_at = Instant::now() + COUNTS_EVERY;
                self.write_counts();
            }
            if Instant::now() >= sync_at {
                sync_at = Instant::now() + SYNC_EVERY;
                self.sync();
            }
        }
        self.write_counts();
        self.sync();
    }

    fn write_counts(&mut self) {
        // Another handle, so that the writer can be changed meanwhile.
        let state = Arc::clone(&self.state);
        let counters = [
            (Event::HeldBack, &state.held_back, HELD_BACK),
            (Event::Lost, &state.lost, LOST),
        ];
        for (event, counter, why) in counters {
            let count = counter.swap(0, Ordering::Relaxed);
            if count == 0 {
                continue;
            }
            let line = Entry::counted(event, count, why).to_line();
            let written = self.append(&line);
            match &written {
                Err(_) => drop(counter.fetch_add(count, Ordering::Relaxed)),
                Ok(()) if event == Event::Lost => tracing::error!(count, "{LOST}"),
                Ok(()) => {}
            }
            self.tell("write", written);
            let _ = self.news.send(line.into());
        }
    }

    fn write(&mut self, line: String) {
        // What is missing is told where it is missing.
        if self.state.troubled.load(Ordering::Relaxed) {
            self.write_counts();
        }
        let written = self.append(&line);
        if written.is_err() {
            self.state.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.tell("write", written);
        // Who follows sees it also when the disk does not take it.
        let _ = self.news.send(line.into());
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|open| open.length >= FILE_AT_MOST) {
            self.sync();
            self.open = None;
            rotate(&self.dir)?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            closed => closed.insert(open(&self.dir)?),
        };
        let written = open.file.write_all(line.as_bytes());
        match written {
            Ok(()) => {
                open.length += line.len() as u64;
                open.synced = false;
            }
            // A full disk takes a part of a line. Looked at anew when it takes lines again.
            Err(_) => {
                let _ = open.file.set_len(open.length);
                self.open = None;
            }
        }
        written
    }

    fn sync(&mut self) {
        let Some(open) = self.open.as_mut().filter(|open| !open.synced) else {
            return;
        };
        open.synced = true;
        let synced = open.file.sync_data();
        self.tell("sync", synced);
    }

    /// An error once, until it works again.
    fn tell(&self, what: &str, outcome: io::Result<()>) {
        let troubled = &self.state.troubled;
        match outcome {
            Ok(()) if what == "write" && troubled.swap(false, Ordering::Relaxed) => {
                tracing::info!("the audit log is written again");
            }
            Ok(()) => {}
            Err(error) if !troubled.swap(true, Ordering::Relaxed) => {
                let path = self.dir.join(NAME);
                tracing::error!(path = %path.display(), %error, "cannot {what} the audit log; operations go on without it");
            }
            Err(_) => {}
        }
    }

    fn look(&self) -> Snapshot {
        Snapshot {
            files: files(&self.dir),
            news: self.news.subscribe(),
        }
    }
}

/// Every file of the log in `dir`, the oldest first, with the bytes that it has now.
pub(super) fn files(dir: &Path) -> Vec<(File, u64)> {
    let numbered = (1..FILES).rev().map(|number| numbered(dir, number));
    let paths = numbered.chain([dir.join(NAME)]);
    let open = |path: &Path| {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        io::Result::Ok((file, length))
    };
    let files = paths.filter_map(|path| match open(&path) {
        Ok(opened) => Some(opened),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "a file of the audit log cannot be read, and is passed over");
            None
        }
    });
    files.collect()
}

fn numbered(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{NAME}.{number}"))
}

/// Every file gets the next number; the oldest goes.
fn rotate(dir: &Path) -> io::Result<()> {
    for number in (1..FILES - 1).rev() {
        match std::fs::rename(numbered(dir, number), numbered(dir, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(dir.join(NAME), numbered(dir, 1))
}

/// The newest file. A line that a death of the process has torn is ended, so that the next one is whole.
fn open(dir: &Path) -> io::Result<Open> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(dir.join(NAME))?;
    let mut length = file.metadata()?.len();
    if length > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            length += 1;
        }
    }
    Ok(Open {
        file,
        length,
        synced: true,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn writer(dir: &Path) -> Writer {
        Writer {
            dir: dir.to_owned(),
            open: None,
            news: broadcast::channel(BEHIND_AT_MOST).0,
            state: Arc::default(),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let files = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_rotate_by_size_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("audit");
        let mut writer = writer(&dir);
        for round in 0..FILES + 3 {
            writer.write(format!("{round}\n"));
            writer.open.as_mut().unwrap().length = FILE_AT_MOST;
        }
        let all = names(&dir);
        assert_eq!(all.len(), usize::try_from(FILES).unwrap(), "{all:?}");
        let newest = std::fs::read_to_string(dir.join(NAME)).unwrap();
        assert_eq!(newest, format!("{}\n", FILES + 2));
        let looked = writer.look().files.len();
        assert_eq!(looked, all.len());
        let mode = std::fs::metadata(dir.join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn who_follows_is_led_across_a_rotation_and_who_reads_finds_the_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        let mut news = writer.look().news;
        for round in 0..3 {
            writer.write(format!("{round}\n"));
            writer.open.as_mut().unwrap().length = FILE_AT_MOST;
        }
        let heard: Vec<_> = std::iter::from_fn(|| news.try_recv().ok()).collect();
        assert_eq!(heard.concat(), "0\n1\n2\n");
        let mut text = String::new();
        for (mut file, _) in writer.look().files {
            file.read_to_string(&mut text).unwrap();
        }
        assert_eq!(text, "0\n1\n2\n");
    }

    #[test]
    fn a_torn_line_does_not_spoil_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "whole\nto").unwrap();
        let mut writer = writer(dir.path());
        writer.write("next\n".to_owned());
        let text = std::fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert_eq!(text, "whole\nto\nnext\n");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told_once_and_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("audit");
        std::fs::write(&place, "in the way").unwrap();
        let mut writer = writer(&place);
        writer.write("lost\n".to_owned());
        assert!(writer.state.troubled.load(Ordering::Relaxed));
        std::fs::remove_file(&place).unwrap();
        writer.write("kept\n".to_owned());
        assert!(!writer.state.troubled.load(Ordering::Relaxed));
        let text = std::fs::read_to_string(place.join(NAME)).unwrap();
        let (missing, kept) = text.split_once('\n').unwrap();
        assert_eq!(kept, "kept\n");
        assert!(
            missing.contains(r#""event":"lost""#) && missing.contains(r#""held_back":1"#),
            "{missing}"
        );
    }

    #[test]
    fn what_was_only_counted_becomes_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        writer.state.held_back.store(93, Ordering::Relaxed);
        writer.write_counts();
        writer.write_counts();
        let text = std::fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains(r#""event":"held_back""#) && text.contains(r#""held_back":93"#),
            "{text}"
        );
    }
}
