//! Agents that were refused because another one that is alive serves their host: somebody runs two by mistake, or has stolen the key.
//!
//! It lets nobody in and keeps nobody out. The invariant: it holds an entry a host at most, so a rival that dials for ever fills nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use hostler_common::id::HostName;
use tokio::time::Instant;

/// A refused agent dials again within half a minute, so one that was not heard for this long is gone.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// The newest rival of each host.
#[derive(Debug, Default)]
pub(super) struct Rivals(BTreeMap<HostName, Rival>);

#[derive(Debug)]
struct Rival {
    from: String,
    /// Where the agent that is connected comes from.
    serving: String,
    at: Instant,
}

impl Rivals {
    /// One `from` there was refused for the agent that is `serving`.
    pub(super) fn refused(&mut self, host: &HostName, from: &str, serving: &str) {
        self.0.retain(|_, rival| rival.at.elapsed() < REMEMBERED_FOR);
        let rival = Rival {
            from: from.to_owned(),
            serving: serving.to_owned(),
            at: Instant::now(),
        };
        self.0.insert(host.clone(), rival);
    }

    /// A sentence about each that was refused lately.
    pub(super) fn told(&self) -> Vec<String> {
        let lately = self
            .0
            .iter()
            .filter(|(_, rival)| rival.at.elapsed() < REMEMBERED_FOR);
        let told = lately.map(|(host, Rival { from, serving, at })| {
            format!(
                "two agents call themselves host {host}: one from {serving} is connected, and one from {from} was refused {} s ago. \
                 Stop the one that is wrong; if it is not yours, the key was stolen: hostler agents revoke {host}",
                at.elapsed().as_secs()
            )
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rival_is_told_of_while_it_dials_and_forgotten_when_it_is_gone() {
        let host: HostName = "h1".parse().unwrap();
        let mut rivals = Rivals::default();
        for port in 0..1000 {
            rivals.refused(&host, &format!("192.0.2.9:{port}"), "192.0.2.1:7");
        }
        tokio::time::advance(Duration::from_secs(40)).await;
        let told = rivals.told();
        assert_eq!(told.len(), 1);
        for part in [
            "host h1",
            "192.0.2.1:7",
            "192.0.2.9:999",
            "40 s ago",
            "agents revoke h1",
        ] {
            assert!(told[0].contains(part), "{part}: {}", told[0]);
        }
        tokio::time::advance(REMEMBERED_FOR).await;
        assert!(rivals.told().is_empty());
    }
}
