//! What all records together are: one sum over every key, value and revision, kept beside them in each commit.
//!
//! SQLite checks the log's frames and the shape of the file, never the bytes of a record. The sum does: a record that
//! was changed, lost or put back by anything but a commit is found when the store is opened.

use ring::digest::{Context, SHA256};
use rusqlite::Connection;

use crate::store::Revision;

/// So many bytes of SHA-256 are kept of each record. What damages disks does not look for collisions.
const LENGTH: usize = 16;

/// The sum. Records are put in and taken out in any order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content([u8; LENGTH]);

impl Content {
    /// Puts a record in, or takes it out when it is in.
    pub(super) fn turn(&mut self, key: &str, value: &[u8], modified: Revision) {
        let mut context = Context::new(&SHA256);
        // The length keeps a key's end apart from its value's beginning.
        context.update(&(key.len() as u64).to_be_bytes());
        context.update(key.as_bytes());
        context.update(&modified.0.to_be_bytes());
        context.update(value);
        for (byte, new) in self.0.iter_mut().zip(context.finish().as_ref()) {
            *byte ^= new;
        }
    }

    /// What is stored at `revision`: that number is a part of it.
    pub(super) fn seal(self, revision: Revision) -> [u8; LENGTH] {
        let mut sealed = self;
        sealed.turn("", b"", revision);
        sealed.0
    }

    /// Of every record that there is.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut content = Self::default();
        let mut select = connection.prepare("SELECT key, value, modified FROM kv")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let key = row.get_ref(0)?.as_str()?;
            let value = row.get_ref(1)?.as_blob()?;
            content.turn(key, value, Revision(row.get::<_, i64>(2)?.cast_unsigned()));
        }
        Ok(content)
    }
}
