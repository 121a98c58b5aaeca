//! Where a test may kill `hostler-agent enrol`: after each thing that it leaves on the host.
//!
//! The invariant: what is named here is passed by an enrolment, or the test of the points fails.

hostler_common::failpoints! {
    /// The key is kept, and nobody has heard of it.
    Key = "enrol.key",
    /// The certificate came, and nothing of it is on the disk.
    Answer = "enrol.answer",
    /// The CAs are in their place.
    Cas = "enrol.cas",
    /// A file is written beside its place.
    Beside = "enrol.beside",
    /// It is noted which token it was; the certificate is not in its place.
    Noted = "enrol.noted",
    /// The certificate is in its place.
    Certificate = "enrol.certificate",
    /// The configuration names the coordinator.
    Configuration = "enrol.configuration",
    /// The service runs, if it is ours to start.
    Service = "enrol.service",
    /// The key that was kept for another try is gone.
    KeyGone = "enrol.key_gone",
}
