//! The one file that turns libvirt's (domain, code) into ours.

use hostler_common::error::Retry;
use thiserror::Error;
use virt::error::{ErrorDomain, ErrorNumber};

/// What libvirt refused, or what went wrong on the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LibvirtFault {
    /// No such domain.
    #[error("libvirt knows no such domain ({message})")]
    NoSuchDomain {
        /// libvirt's words.
        message: String,
    },
    /// No such network.
    #[error("libvirt knows no such network ({message})")]
    NoSuchNetwork {
        /// libvirt's words.
        message: String,
    },
    /// No such pool.
    #[error("libvirt knows no such storage pool ({message})")]
    NoSuchPool {
        /// libvirt's words.
        message: String,
    },
    /// No such volume.
    #[error("libvirt knows no such volume ({message})")]
    NoSuchVolume {
        /// libvirt's words.
        message: String,
    },
    /// No such device on the host.
    #[error("libvirt knows no such device ({message})")]
    NoSuchDevice {
        /// libvirt's words.
        message: String,
    },
    /// The daemon does not answer, or went away during the call.
    #[error("libvirt does not answer ({message}); is libvirtd running?")]
    ConnectionBroken {
        /// libvirt's words.
        message: String,
    },
    /// The XML is not what libvirt takes.
    #[error("libvirt refuses the definition: {message}")]
    InvalidXml {
        /// libvirt's words.
        message: String,
    },
    /// It exists already.
    #[error("it exists already: {message}")]
    AlreadyExists {
        /// libvirt's words.
        message: String,
    },
    /// It is in a state that does not allow this, or it is done already.
    #[error("libvirt refuses this now: {message}")]
    InvalidState {
        /// libvirt's words.
        message: String,
    },
    /// This libvirt or this hypervisor cannot do it.
    #[error("this libvirt cannot do it: {message}")]
    Unsupported {
        /// libvirt's words.
        message: String,
    },
    /// libvirt gave up waiting.
    #[error("libvirt gave up waiting: {message}")]
    Timeout {
        /// libvirt's words.
        message: String,
    },
    /// Something holds it.
    #[error("it is busy: {message}")]
    Busy {
        /// libvirt's words.
        message: String,
    },
    /// libvirt does not let the agent do it.
    #[error("libvirt denies it: {message}; does the agent run as root or in the group libvirt?")]
    Denied {
        /// libvirt's words.
        message: String,
    },
    /// Anything else.
    #[error("{message} (libvirt error {code} of domain {domain})")]
    Other {
        /// libvirt's words.
        message: String,
        /// `virErrorNumber`.
        code: u32,
        /// `virErrorDomain`.
        domain: u32,
    },
}

impl LibvirtFault {
    /// What may be done about it.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NoSuchDomain { .. }
            | Self::NoSuchNetwork { .. }
            | Self::NoSuchPool { .. }
            | Self::NoSuchVolume { .. }
            | Self::NoSuchDevice { .. }
            | Self::InvalidXml { .. }
            | Self::AlreadyExists { .. }
            | Self::InvalidState { .. }
            | Self::Unsupported { .. }
            | Self::Denied { .. }
            | Self::Other { .. } => Retry::Never,
            // Refused before it began.
            Self::Busy { .. } => Retry::Later,
            Self::ConnectionBroken { .. } | Self::Timeout { .. } => Retry::ReadBack,
        }
    }

    /// Whether it says that the object does not exist.
    pub(super) fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::NoSuchDomain { .. }
                | Self::NoSuchNetwork { .. }
                | Self::NoSuchPool { .. }
                | Self::NoSuchVolume { .. }
                | Self::NoSuchDevice { .. }
        )
    }

    /// Whether it can mean that what was asked for is so already.
    pub(super) fn may_be_done_already(&self) -> bool {
        match self {
            Self::InvalidState { .. } | Self::AlreadyExists { .. } | Self::Other { .. } => true,
            other => other.is_absence(),
        }
    }
}

impl From<virt::error::Error> for LibvirtFault {
    fn from(error: virt::error::Error) -> Self {
        Self::translate(
            error.code().known(),
            error.domain().known(),
            error.code().to_raw(),
            error.domain().to_raw(),
            error.message(),
        )
    }
}

impl LibvirtFault {
    fn translate(
        number: Option<ErrorNumber>,
        origin: Option<ErrorDomain>,
        code: u32,
        domain: u32,
        message: &str,
    ) -> Self {
        use ErrorNumber as E;
        let message = message.to_owned();
        let other = |message| Self::Other {
            message,
            code,
            domain,
        };
        // What comes out of the transport is about the connection whatever its code says: libvirt reports a
        // daemon that went away as a system, internal or rpc error.
        let transport = matches!(
            origin,
            Some(ErrorDomain::Rpc | ErrorDomain::Remote | ErrorDomain::Ssh | ErrorDomain::Libssh)
        );
        match number {
            Some(E::NoDomain) => Self::NoSuchDomain { message },
            Some(E::NoNetwork) => Self::NoSuchNetwork { message },
            Some(E::NoStoragePool) => Self::NoSuchPool { message },
            Some(E::NoStorageVolume) => Self::NoSuchVolume { message },
            Some(E::NoNodeDevice) => Self::NoSuchDevice { message },
            Some(
                E::AuthFailed | E::AuthCancelled | E::AuthUnavailable | E::AccessDenied | E::OperationDenied,
            ) => Self::Denied { message },
            Some(E::NoConnect | E::InvalidConn | E::Rpc | E::GnutlsError | E::Ssh | E::UnknownHost) => {
                Self::ConnectionBroken { message }
            }
            Some(E::SystemError | E::InternalError | E::OperationFailed | E::CallFailed) if transport => {
                Self::ConnectionBroken { message }
            }
            Some(
                E::XmlError
                | E::XmlDetail
                | E::XmlInvalidSchema
                | E::ParseFailed
                | E::InvalidArg
                | E::ConfigUnsupported,
            ) => Self::InvalidXml { message },
            Some(E::DomExist | E::NetworkExist | E::StorageVolExist) => Self::AlreadyExists { message },
            Some(E::OperationInvalid) => Self::InvalidState { message },
            Some(E::NoSupport | E::OperationUnsupported | E::ArgumentUnsupported) => {
                Self::Unsupported { message }
            }
            Some(E::OperationTimeout) => Self::Timeout { message },
            Some(E::ResourceBusy) => Self::Busy { message },
            _ => other(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: ErrorNumber, origin: ErrorDomain) -> LibvirtFault {
        LibvirtFault::translate(Some(number), Some(origin), 1, 2, "words")
    }

    #[test]
    fn a_daemon_that_went_away_is_a_broken_connection_whatever_the_code() {
        for (number, origin) in [
            (ErrorNumber::SystemError, ErrorDomain::Rpc),
            (ErrorNumber::InternalError, ErrorDomain::Rpc),
            (ErrorNumber::NoConnect, ErrorDomain::Qemu),
            (ErrorNumber::Rpc, ErrorDomain::Remote),
        ] {
            let fault = of(number, origin);
            assert!(
                matches!(fault, LibvirtFault::ConnectionBroken { .. }),
                "{fault:?}"
            );
            assert_eq!(fault.retry(), Retry::ReadBack);
        }
    }

    #[test]
    fn what_the_daemon_says_itself_is_not_about_the_connection() {
        let fault = of(ErrorNumber::InternalError, ErrorDomain::Qemu);
        assert_eq!(fault.to_string(), "words (libvirt error 1 of domain 2)");
        assert_eq!(fault.retry(), Retry::Never);
        assert_eq!(
            of(ErrorNumber::ResourceBusy, ErrorDomain::Qemu).retry(),
            Retry::Later
        );
        assert_eq!(
            of(ErrorNumber::OperationTimeout, ErrorDomain::Qemu).retry(),
            Retry::ReadBack
        );
        let refused = of(ErrorNumber::XmlError, ErrorDomain::Domain);
        assert!(matches!(refused, LibvirtFault::InvalidXml { .. }), "{refused:?}");
    }

    #[test]
    fn an_object_that_is_not_there_is_an_absence_of_its_kind() {
        for number in [
            ErrorNumber::NoDomain,
            ErrorNumber::NoNetwork,
            ErrorNumber::NoStoragePool,
            ErrorNumber::NoStorageVolume,
            ErrorNumber::NoNodeDevice,
        ] {
            assert!(of(number, ErrorDomain::Qemu).is_absence(), "{number:?}");
        }
        assert!(!of(ErrorNumber::OperationInvalid, ErrorDomain::Qemu).is_absence());
    }
}
