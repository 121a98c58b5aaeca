//! Somebody's wish that an operation stops: from the session, which hears it, to the run and its step, which obey.
//!
//! It decides nothing. The invariant: a wish is never taken back, and the first name that it came with stays.

use std::future::pending;

use tokio::sync::watch;

/// Where a wish comes in.
#[derive(Debug)]
pub struct Canceller(watch::Sender<Option<String>>);

/// Where it is heard. Clones hear the same.
#[derive(Debug, Clone)]
pub struct Cancel(Option<watch::Receiver<Option<String>>>);

/// Both ends; `by` is who has cancelled already.
pub fn channel(by: Option<String>) -> (Canceller, Cancel) {
    let (tell, told) = watch::channel(by);
    (Canceller(tell), Cancel(Some(told)))
}

impl Canceller {
    /// `by` cancels, unless somebody did before.
    pub fn cancel(&self, by: &str) {
        self.0.send_if_modified(|known| {
            let new = known.is_none();
            known.get_or_insert_with(|| by.to_owned());
            new
        });
    }
}

impl Cancel {
    /// For what nobody may cancel, as an undo.
    pub fn never() -> Self {
        Self(None)
    }

    /// Who cancelled, when somebody did.
    pub fn by(&self) -> Option<String> {
        self.0.as_ref()?.borrow().clone()
    }

    /// Returns who cancelled, once somebody does. Cancel-safe.
    pub async fn heard(&mut self) -> String {
        if let Some(told) = &mut self.0
            && let Ok(by) = told.wait_for(Option::is_some).await
            && let Some(by) = &*by
        {
            return by.clone();
        }
        // Nobody is left who could.
        pending().await
    }
}
