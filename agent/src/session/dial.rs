//! From the configuration to a channel: credentials are read again for every attempt, so that a renewed
//! certificate is used without a restart.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_pki::address::CoordinatorAddress;
use hostler_pki::channel::{ChannelError, ChannelOptions, connect};
use hostler_pki::client::client_config;
use hostler_pki::files::{Credentials, TlsFiles};
use tonic::transport::Channel;

use crate::blocking::Blocking;

/// Three small files; a disk that takes longer is broken.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// Why there is no session, in one line that says what to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Only a person cures it: a refusal, or bad credentials.
    Person(String),
    /// It may pass: the network, or a coordinator that is down.
    Passing(String),
}

/// A channel to the coordinator, or why there is none.
pub type Dialling = Pin<Box<dyn Future<Output = Result<Channel, Trouble>> + Send>>;

/// Opens a channel to the coordinator.
pub type Dial = Arc<dyn Fn() -> Dialling + Send + Sync>;

/// Dials `address` over mutual TLS with the credentials in `files`.
pub fn over_tls(address: CoordinatorAddress, files: TlsFiles, blocking: Blocking) -> Dial {
    Arc::new(move || {
        let (address, files, blocking) = (address.clone(), files.clone(), blocking.clone());
        Box::pin(async move {
            let config = blocking
                .run("reading the credentials", READ_DEADLINE, move || {
                    let credentials = Credentials::load(&files).map_err(|error| Chain(&error).to_string())?;
                    client_config(&credentials).map_err(|error| Chain(&error).to_string())
                })
                .await
                .map_err(|fault| Trouble::Passing(fault.to_string()))?
                .map_err(Trouble::Person)?;
            connect(&address, config, ChannelOptions::default())
                .await
                .map_err(|error| trouble(&error))
        })
    })
}

fn trouble(error: &ChannelError) -> Trouble {
    let line = Chain(error).to_string();
    match error {
        ChannelError::CertificateRefused { .. }
        | ChannelError::ServerCertificate { .. }
        | ChannelError::Handshake { .. }
        | ChannelError::Protocol { .. } => Trouble::Person(line),
        ChannelError::Resolve { .. }
        | ChannelError::Refused { .. }
        | ChannelError::Unreachable { .. }
        | ChannelError::TimedOut { .. }
        | ChannelError::Closed { .. } => Trouble::Passing(line),
    }
}
