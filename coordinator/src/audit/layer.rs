//! Notes every call that changes something, and every call that is refused, where it is answered. It lies around the role
//! table, so that it sees what the table refuses; it changes neither call nor answer. A caller who hangs up is noted as well:
//! what was asked for may have been done.

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
        let call = Call {
            path,
            identity,
            address,
            changes,
            heard,
            began: Instant::now(),
            audit: self.audit.clone(),
        };
        let noted = Noted {
            answering: Box::pin(self.inner.call(request)),
            call: Some(call),
            begun: false,
        };
        Box::pin(NOTES.scope(RefCell::default(), noted))
    }
}

/// What is known of a call before its answer.
struct Call {
    path: String,
    identity: String,
    address: String,
    changes: bool,
    heard: Heard,
    began: Instant,
    audit: Audit,
}

impl Call {
    fn answered(self, status: Option<&Status>, notes: &Notes) {
        let (code, message) = status.map_or((Code::Ok, ""), |status| (status.code(), status.message()));
        let refused = matches!(code, Code::PermissionDenied | Code::Unauthenticated);
        // No service has it, so that nothing could change; whoever knows no name is not refused one.
        let unknown = code == Code::Unimplemented;
        if !refused && (!self.changes || notes.routine || unknown) {
            return;
        }
        let entry = match refused {
            true => Entry::refused(Event::Call, &self.identity, &self.address, code, message),
            false => Entry::done(Event::Call, &self.identity, &self.address).answered(
                code,
                match message.is_empty() {
                    true => &notes.said,
                    false => message,
                },
            ),
        };
        let request = request::json(&self.path, &self.heard.bytes());
        let entry = entry
            .rpc(&self.path, request, self.began.elapsed())
            .with_operations(&notes.operations);
        self.audit.note(&entry);
    }
}

/// A call, and what its handler says of it.
struct Noted<F> {
    answering: Pin<Box<F>>,
    /// Until it is noted.
    call: Option<Call>,
    begun: bool,
}

impl<F, E> Future for Noted<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.begun = true;
        let answer = std::task::ready!(self.answering.as_mut().poll(cx));
        let call = self.call.take();
        if let (Some(call), Ok(response)) = (call, &answer) {
            let status = Status::from_header_map(response.headers());
            call.answered(
                status.as_ref(),
                &NOTES.try_with(RefCell::take).unwrap_or_default(),
            );
        }
        Poll::Ready(answer)
    }
}

/// Whoever hangs up before the answer has asked all the same. The notes are still there: they go after the call.
impl<F> Drop for Noted<F> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take().filter(|_| self.begun) {
            let gone = Status::cancelled("the caller went away before the answer; it may have been done");
            call.answered(Some(&gone), &NOTES.try_with(RefCell::take).unwrap_or_default());
        }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hostler_common::id::OperationId;

    use super::*;
    use crate::audit;

    /// Makes an operation, and then does not answer.
    struct Hangs(OperationId);

    impl Service<Request<Body>> for Hangs {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Answer<Infallible>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _request: Request<Body>) -> Self::Future {
            let operation = self.0;
            Box::pin(async move {
                audit::made(operation);
                std::future::pending().await
            })
        }
    }

    #[tokio::test]
    async fn a_caller_who_hangs_up_before_the_answer_is_noted_with_what_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let log = Audit::start(dir.path()).unwrap();
        let operation = OperationId::generate();
        let mut service = AuditLayer(log.clone()).layer(Hangs(operation));
        let request = |path: &str| Request::builder().uri(path).body(Body::empty()).unwrap();
        for rpc in ["CreateHypervisor", "ListHypervisors"] {
            let mut call = service.call(request(&format!("/operations.v1.OperationsService/{rpc}")));
            assert!(futures_util::poll!(&mut call).is_pending());
        }
        drop(service.call(request("/operations.v1.OperationsService/CreateBackup")));
        log.end().await;
        let text = std::fs::read_to_string(dir.path().join("audit/audit.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        for told in ["CreateHypervisor", "CANCELLED", &operation.to_string()] {
            assert!(text.contains(told), "{text}");
        }
    }
}
