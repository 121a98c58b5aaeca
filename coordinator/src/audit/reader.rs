//! Reads the log back: the newest lines that fit a question, oldest first, then what happens.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};

use futures_util::stream;
use hostler_common::units::UnixMillis;
use serde::Deserialize;
use serde::de::IgnoredAny;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, oneshot};
use tokio_stream::Stream;

use super::writer::Snapshot;
use super::{Audit, Busy};

/// Lines that one part holds: of the longest, still below what gRPC clients take.
const PART: usize = 100;

/// The bytes that an answer holds at most: the newest of what fits.
const BYTES_AT_MOST: usize = 32 << 20;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What happened at or after this.
    pub since: Option<UnixMillis>,
    /// What happened before this.
    pub until: Option<UnixMillis>,
    /// Of identities that hold this text.
    pub identity: String,
    /// At most this many of what is written, the newest.
    pub at_most: usize,
    /// Also what happens from now on.
    pub follow: bool,
}

/// Lines without their line feeds.
pub type Lines = Vec<String>;

#[derive(Deserialize)]
struct Told {
    time: String,
    #[serde(default)]
    identity: String,
}

impl Asked {
    fn fits(&self, line: &str) -> bool {
        // What a death has torn is told, unless somebody looks for something.
        let Ok(told) = serde_json::from_str::<Told>(line) else {
            return self.since.is_none() && self.until.is_none() && self.identity.is_empty();
        };
        told.identity.contains(&self.identity) && self.covers(&told.time)
    }

    fn covers(&self, time: &str) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        OffsetDateTime::parse(time, &Rfc3339).is_ok_and(|at| {
            let at = at.unix_timestamp_nanos() / 1_000_000;
            self.since.is_none_or(|since| at >= i128::from(since.0))
                && self.until.is_none_or(|until| at < i128::from(until.0))
        })
    }
}

/// The log in parts. It ends at once when nothing is written at all.
///
/// # Errors
/// When too many read it.
pub async fn read(audit: &Audit, asked: Asked) -> Result<impl Stream<Item = Lines> + Send + use<>, Busy> {
    let place = Audit::place()?;
    let (lines, news) = match audit.snapshot().await? {
        None => (VecDeque::new(), None),
        Some(Snapshot { files, news }) => {
            let lines = on_a_thread(files, asked.clone()).await?;
            (lines, asked.follow.then_some(news))
        }
    };
    drop(place);
    let reading = Reading { lines, news, asked };
    Ok(stream::unfold(reading, |mut reading| async move {
        let part = reading.next().await?;
        Some((part, reading))
    }))
}

/// The disk may take its time.
async fn on_a_thread(files: Vec<(File, u64)>, asked: Asked) -> Result<VecDeque<String>, Busy> {
    let (answer, answered) = oneshot::channel();
    std::thread::Builder::new()
        .name("audit-read".to_owned())
        .spawn(move || answer.send(newest(files, &asked)))
        .map_err(|_| Busy)?;
    answered.await.map_err(|_| Busy)
}

struct Reading {
    lines: VecDeque<String>,
    news: Option<broadcast::Receiver<std::sync::Arc<str>>>,
    asked: Asked,
}

impl Reading {
    async fn next(&mut self) -> Option<Lines> {
        if !self.lines.is_empty() {
            let count = self.lines.len().min(PART);
            return Some(self.lines.drain(..count).collect());
        }
        let news = self.news.as_mut()?;
        loop {
            match news.recv().await {
                Ok(line) if self.asked.fits(&line) => return Some(vec![line.trim_end().to_owned()]),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    return Some(vec![format!(
                        r#"{{"event":"lost","message":"this reader was too slow; the log has what it missed","held_back":{missed}}}"#
                    )]);
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// A line that a death or a full disk has torn, as an object that holds what is left of it: whoever reads JSON reads on.
fn whole(line: String) -> String {
    match line.is_empty() || serde_json::from_str::<IgnoredAny>(&line).is_ok() {
        true => line,
        false => serde_json::json!({ "event": "torn", "message": line }).to_string(),
    }
}

fn newest(files: Vec<(File, u64)>, asked: &Asked) -> VecDeque<String> {
    let mut kept = VecDeque::new();
    let mut bytes = 0;
    for (file, length) in files {
        // A part of the log that cannot be read, or is no text, is passed over: the rest is worth having.
        for line in BufReader::new(file.take(length))
            .split(b'\n')
            .map_while(Result::ok)
        {
            let line = whole(String::from_utf8_lossy(&line).into_owned());
            if line.is_empty() || !asked.fits(&line) {
                continue;
            }
            bytes += line.len();
            kept.push_back(line);
            while kept.len() > asked.at_most || bytes > BYTES_AT_MOST {
                bytes -= kept.pop_front().map_or(bytes, |line: String| line.len());
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_an_object_among_the_others() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let good =
            r#"{"time":"2026-11-22T07:00:00Z","identity":"spiffe://a/client/admin/ada","event":"call"}"#;
        std::fs::write(path.path(), format!("{good}\n{}\n{good}\n", &good[..40])).unwrap();
        let length = std::fs::metadata(path.path()).unwrap().len();
        let read = |identity: &str| {
            let asked = Asked {
                since: None,
                until: None,
                identity: identity.to_owned(),
                at_most: 10,
                follow: false,
            };
            newest(vec![(File::open(path.path()).unwrap(), length)], &asked)
        };
        let lines = read("");
        assert_eq!((lines[0].as_str(), lines[2].as_str()), (good, good));
        let torn: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(
            (&torn["event"], &torn["message"]),
            (&"torn".into(), &good[..40].into())
        );
        assert_eq!(read("ada").len(), 2, "nobody knows whose the torn one was");
    }
}
