//! What grpc.health.v1 tells: whether this coordinator serves, and whether a certificate wants a person.
//!
//! It knows of nothing by itself. A certificate that ends soon never makes the server as a whole NOT_SERVING: what asks
//! whether to send calls here must not be told no while calls are answered.

use std::time::Duration;

use hostler_common::units::UnixMillis;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus::{self, NotServing, Serving};
use tonic_health::server::HealthReporter;

use crate::identity::own::Own;

/// Names under which serving is told: the whole server, IsardVDI's name for it (wire.md, point 7), and our own.
const SERVER: [&str; 4] = [
    "",
    "operations.v1.OperationsService",
    "hostler.fleet.v1.FleetService",
    "hostler.site.v1.SiteService",
];

/// The name under which certificates are told: NOT_SERVING while the coordinator's own, or a CA, is over or ends soon.
pub const CERTIFICATES: &str = "hostler.certificates";

/// How often the certificates are looked at: reading the clock and comparing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Says that this coordinator serves.
pub(super) async fn serving(reporter: &HealthReporter, own: &Own) {
    tell_server(reporter, Serving).await;
    reporter.set_service_status(CERTIFICATES, certificates(own)).await;
}

/// Follows the certificates until `shutdown`, then says that nothing is served any more.
pub(super) async fn follow(reporter: HealthReporter, own: Own, shutdown: CancellationToken) {
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        // Cancel-safe: a tick that is not taken comes again.
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = tick.tick() => {}
        }
        let status = certificates(&own);
        // Whoever watches hears of each telling, also of one that changes nothing.
        if told.replace(status) != Some(status) {
            reporter.set_service_status(CERTIFICATES, status).await;
        }
    }
    tell_server(&reporter, NotServing).await;
}

fn certificates(own: &Own) -> ServingStatus {
    match own.now().warnings(UnixMillis::now()).is_empty() {
        true => Serving,
        false => NotServing,
    }
}

async fn tell_server(reporter: &HealthReporter, status: ServingStatus) {
    for name in SERVER {
        reporter.set_service_status(name, status).await;
    }
}
