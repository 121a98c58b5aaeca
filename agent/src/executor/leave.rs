//! Until when a run may begin steps: as long as its lease lasts by this process's own clock.
//!
//! A process that was stopped for longer than its lease may have been replaced meanwhile, and cannot know. So nothing
//! begins under a lease that has run out until the coordinator has renewed it; who was replaced is told instead that
//! the lease is not its own. What had begun ends: nobody can call it back.
//!
//! It decides nothing else. The invariant: the time counts from when a proposal was sent, so it ends before the
//! coordinator takes the lease for run out.

use tokio::sync::watch;
use tokio::time::Instant;

/// Where leave is given.
#[derive(Debug)]
pub struct Granter(watch::Sender<Instant>);

/// What a run has. Clones have the same.
#[derive(Debug, Clone)]
pub struct Leave(Option<watch::Receiver<Instant>>);

/// Both ends; there is leave until then.
pub fn channel(until: Instant) -> (Granter, Leave) {
    let (grant, granted) = watch::channel(until);
    (Granter(grant), Leave(Some(granted)))
}

impl Granter {
    /// There is leave until then, or longer when there was already.
    pub fn until(&self, until: Instant) {
        self.0.send_if_modified(|known| {
            let longer = until > *known;
            *known = until.max(*known);
            longer
        });
    }
}

impl Leave {
    /// Without an end, for what nobody else could do.
    pub fn unlimited() -> Self {
        Self(None)
    }

    /// Whether there is leave now.
    pub fn is_given(&self) -> bool {
        let until = self.0.as_ref().map(|granted| *granted.borrow());
        until.is_none_or(|until| Instant::now() < until)
    }

    /// Returns once there is leave. Cancel-safe.
    pub async fn given(&mut self) {
        if let Some(granted) = &mut self.0 {
            // Who gives leave is gone: the process ends, and nothing more begins.
            if granted.wait_for(|until| Instant::now() < *until).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn leave_ends_with_the_lease_and_comes_back_with_its_renewal() {
        let lease = Duration::from_secs(3);
        let (granter, mut leave) = channel(Instant::now() + lease);
        leave.given().await;
        tokio::time::advance(lease).await;
        assert!(!leave.is_given());
        let mut waiting = tokio::spawn(async move { leave.given().await });
        let none = tokio::time::timeout(lease * 100, &mut waiting).await;
        assert!(none.is_err(), "nobody renewed it");
        granter.until(Instant::now() + lease);
        waiting.await.unwrap();
        assert!(Leave::unlimited().is_given());
    }
}
