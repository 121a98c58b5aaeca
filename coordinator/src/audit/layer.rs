//! Notes every call that changes something, and every call that is refused, where it is answered. It lies around the role
//! table, so that it sees what the table refuses; it changes neither call nor answer.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::{Audit, Entry, Event, NOTES, Notes, request, table};
use crate::api::listener::Peer;

/// Puts the log around every service.
#[derive(Debug, Clone)]
pub struct AuditLayer(pub Audit);

impl<S> Layer<S> for AuditLayer {
    type Service = Audited<S>;

    fn layer(&self, inner: S) -> Audited<S> {
        Audited {
            inner,
            audit: self.0.clone(),
        }
    }
}

/// A service whose calls are noted.
#[derive(Debug, Clone)]
pub struct Audited<S> {
    inner: S,
    audit: Audit,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Audited<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let peer = request.extensions().get::<Peer>();
        let (identity, address) = peer.map_or_else(Default::default, |peer| {
            (peer.identity.to_string(), peer.address.to_string())
        });
        let changes = table::changes(&path);
        let heard = Heard::default();
        let request = match changes {
            true => request.map(|body| Body::new(Listened::new(body, heard.clone()))),
            false => request,
        };
        let began = Instant::now();
        let answering = NOTES.scope(RefCell::default(), Noted(Box::pin(self.inner.call(request))));
        let audit = self.audit.clone();
        Box::pin(async move {
            let (answer, notes) = answering.await;
            let response = answer?;
            let status = Status::from_header_map(response.headers());
            let (code, message) = status
                .as_ref()
                .map_or((Code::Ok, ""), |status| (status.code(), status.message()));
            let refused = matches!(code, Code::PermissionDenied | Code::Unauthenticated);
            // No service has it, so that nothing could change; whoever knows no name is not refused one.
            let unknown = code == Code::Unimplemented;
            if refused || (changes && !notes.routine && !unknown) {
                let entry = match refused {
                    true => Entry::refused(Event::Call, identity, address, code, message),
                    false => Entry::done(Event::Call, identity, address).answered(
                        code,
                        match message.is_empty() {
                            true => &notes.said,
                            false => message,
                        },
                    ),
                };
                let request = request::json(&path, &heard.bytes());
                let entry = entry
                    .rpc(&path, request, began.elapsed())
                    .with_operations(&notes.operations);
                audit.note(&entry);
            }
            Ok(response)
        })
    }
}

/// A call, and what its handler says of it.
struct Noted<F>(Pin<Box<F>>);

impl<F: Future> Future for Noted<F> {
    type Output = (F::Output, Notes);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let output = std::task::ready!(self.0.as_mut().poll(cx));
        let notes = NOTES.try_with(RefCell::take).unwrap_or_default();
        Poll::Ready((output, notes))
    }
}

/// The beginning of a request's body.
#[derive(Debug, Default, Clone)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn take_in(&self, data: &[u8]) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = request::BODY_AT_MOST.saturating_sub(heard.len());
        heard.extend_from_slice(&data[..data.len().min(room)]);
    }

    fn bytes(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A body that is listened to while its handler reads it.
struct Listened {
    inner: Body,
    heard: Heard,
}

impl Listened {
    fn new(inner: Body, heard: Heard) -> Self {
        Self { inner, heard }
    }
}

impl http_body::Body for Listened {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.heard.take_in(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
