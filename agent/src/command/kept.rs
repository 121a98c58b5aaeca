//! What is kept of a program's words: a bounded part, while all of it is read.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// What is kept of each of standard output (its beginning) and standard error (its end).
pub(super) const KEPT: usize = 64 * 1024;

/// How long the output of an ended program may still be on its way. A daemon that it left behind holds the
/// pipe open for ever, so the end of the pipe cannot be waited for.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(200);

/// The last [`KEPT`] bytes of `file`.
pub(super) fn end_of(file: &mut File) -> io::Result<String> {
    let kept = u64::try_from(KEPT).unwrap_or(u64::MAX);
    let from = file.metadata()?.len().saturating_sub(kept);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    // A daemon may go on writing.
    file.take(kept).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[derive(Clone, Copy)]
pub(super) enum Keep {
    Beginning,
    End,
}

/// What is kept of one pipe. The pipe is read to its end whatever is kept, so that a program which says much
/// does not stall.
pub(super) struct Kept {
    bytes: Arc<Mutex<Vec<u8>>>,
    closed: mpsc::Receiver<()>,
}

impl Kept {
    pub(super) fn collect(pipe: Option<impl Read + Send + 'static>, keep: Keep) -> io::Result<Self> {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (closing, closed) = mpsc::sync_channel(1);
        let kept = bytes.clone();
        let read = move || {
            if let Some(mut pipe) = pipe {
                let mut chunk = [0; 4096];
                while let Ok(read @ 1..) = pipe.read(&mut chunk) {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    match keep {
                        Keep::Beginning => {
                            let room = KEPT - kept.len();
                            kept.extend_from_slice(&chunk[..read.min(room)]);
                        }
                        Keep::End => {
                            kept.extend_from_slice(&chunk[..read]);
                            let surplus = kept.len().saturating_sub(KEPT);
                            kept.drain(..surplus);
                        }
                    }
                }
            }
            let _ = closing.send(());
        };
        std::thread::Builder::new()
            .name("program-output".into())
            .spawn(read)?;
        Ok(Self { bytes, closed })
    }

    pub(super) fn text(self) -> String {
        // Whether the pipe closed or not, what there is by now is what there is.
        let _ = self.closed.recv_timeout(LAST_WORDS);
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
