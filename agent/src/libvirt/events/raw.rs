//! The one module with `unsafe`: libvirt's domain events, which virt 0.5 does not wrap. It owns the event loop
//! and the two callbacks, and never calls what it was not given by [`super::Signals`].
//!
//! What makes it sound:
//! - A callback's `opaque` is an `Arc<Signals>` turned raw, one for each registration. libvirt calls the free
//!   function exactly once for a registration that succeeded, after its last callback; only a registration that
//!   failed is freed here.
//! - Callbacks take a shared reference to a `Sync` value, since libvirt may run them on its loop's thread at any
//!   time, and do nothing that can unwind into C.
//! - The connection outlives its registrations: [`Subscription`] removes them before it lets go of it.

#![allow(unsafe_code, reason = "virt 0.5 has no safe way to domain events")]

use std::ffi::{c_int, c_void};
use std::sync::{Arc, OnceLock};

use virt::connect::Connect;
use virt::error::Error;
use virt::{event, sys};

use super::{LibvirtFault, Signals, open};

/// Registers libvirt's own event loop and runs it on a thread for as long as the process lives. A loop that is
/// registered has to run, or libvirtd's keepalive goes unanswered and it drops the connection.
pub(super) fn ensure_event_loop() -> Result<(), LibvirtFault> {
    static LOOP: OnceLock<Result<(), LibvirtFault>> = OnceLock::new();
    LOOP.get_or_init(|| {
        event::event_register_default_impl()?;
        // By default libvirt prints every error to standard error; ours are returned and logged.
        virt::error::clear_error_callback();
        std::thread::Builder::new()
            .name("libvirt-events".into())
            .spawn(|| {
                while let Ok(()) = event::event_run_default_impl() {}
                tracing::error!("libvirt's event loop ended; domain changes are seen late from now on");
            })
            .map_err(|source| LibvirtFault::Unsupported {
                message: format!("no thread for its event loop: {source}"),
            })?;
        Ok(())
    })
    .clone()
}

/// A connection whose events reach its [`Signals`] until it is dropped.
pub(super) struct Subscription {
    connection: Connect,
    lifecycle: c_int,
}

impl Subscription {
    /// Opens a connection to `uri` and subscribes to the lifecycle of every domain and to its own end.
    pub(super) fn open(uri: &str, signals: &Arc<Signals>) -> Result<Self, LibvirtFault> {
        let connection = open(uri)?;
        // The register function takes every kind of event callback as one generic type; the event's number says
        // which it really is.
        type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
        type Lifecycle =
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
        // SAFETY: both are C function pointers of one size, and libvirt calls the callback of
        // VIR_DOMAIN_EVENT_ID_LIFECYCLE with the arguments of `Lifecycle`.
        let callback = unsafe { std::mem::transmute::<Lifecycle, Generic>(on_lifecycle) };
        let opaque = lend(signals);
        // SAFETY: the connection is open; a null domain means every domain; `opaque` belongs to libvirt from
        // here unless the call fails.
        let lifecycle = unsafe {
            sys::virConnectDomainEventRegisterAny(
                connection.as_ptr(),
                std::ptr::null_mut(),
                sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
                Some(callback),
                opaque,
                Some(free),
            )
        };
        if lifecycle < 0 {
            let error = Error::last_error();
            // SAFETY: libvirt did not take `opaque`.
            unsafe { free(opaque) };
            return Err(error.into());
        }
        let opaque = lend(signals);
        // SAFETY: as above.
        let registered = unsafe {
            sys::virConnectRegisterCloseCallback(connection.as_ptr(), Some(on_close), opaque, Some(free))
        };
        let subscription = Self {
            connection,
            lifecycle,
        };
        if registered < 0 {
            let error = Error::last_error();
            // SAFETY: libvirt did not take `opaque`.
            unsafe { free(opaque) };
            return Err(error.into());
        }
        Ok(subscription)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // SAFETY: the connection is still open on our side, and both were registered on it (removing a close
        // callback that was not is an error that changes nothing). libvirt frees each `opaque` when no callback
        // runs any more.
        unsafe {
            sys::virConnectUnregisterCloseCallback(self.connection.as_ptr(), Some(on_close));
            sys::virConnectDomainEventDeregisterAny(self.connection.as_ptr(), self.lifecycle);
        }
    }
}

fn lend(signals: &Arc<Signals>) -> *mut c_void {
    Arc::into_raw(signals.clone()).cast_mut().cast()
}

/// # Safety
/// `opaque` comes from [`lend`], and this is its last use.
unsafe extern "C" fn free(opaque: *mut c_void) {
    // SAFETY: the caller's promise.
    drop(unsafe { Arc::from_raw(opaque.cast::<Signals>()) });
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    _: sys::virDomainPtr,
    _event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt passes what was registered, and frees it only after the last callback.
    let signals = unsafe { &*opaque.cast::<Signals>() };
    signals.set(|pending| pending.changed = true);
    0
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: as in `on_lifecycle`.
    let signals = unsafe { &*opaque.cast::<Signals>() };
    signals.set(|pending| pending.closed = true);
}
