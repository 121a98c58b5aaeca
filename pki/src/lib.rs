//! Hostler's certificates.
