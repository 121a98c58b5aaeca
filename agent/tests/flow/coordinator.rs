//! A coordinator that a test plays by hand, over an in-memory connection.

use std::sync::Arc;
use std::time::Duration;

use hostler_agent::session::dial::{self, Dial, Trouble};
use hostler_common::rpc::hostler::agent::v1::agent_service_server::{AgentService, AgentServiceServer};
use hostler_common::rpc::hostler::agent::v1::session_request::Message as Request;
use hostler_common::rpc::hostler::agent::v1::session_response::Message as Response;
use hostler_common::rpc::hostler::agent::v1::{
    Finish, FinishAnswer, Hello, HostReport, Offer, Propose, ProposeAnswer, SessionRequest, SessionResponse,
    Welcome,
};
use tokio::io::DuplexStream;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Status, Streaming};

/// Long enough for a busy machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(20);

/// One stream as the coordinator sees it.
pub(crate) struct Conversation {
    requests: Streaming<SessionRequest>,
    responses: mpsc::Sender<Result<SessionResponse, Status>>,
    /// Reports seen on the way to something else.
    pub(crate) reports: Vec<HostReport>,
    /// The log lines of every proposal, in order.
    pub(crate) lines: Vec<String>,
}

struct Service(mpsc::Sender<Conversation>);

#[tonic::async_trait]
impl AgentService for Service {
    type SessionStream = ReceiverStream<Result<SessionResponse, Status>>;

    async fn session(
        &self,
        request: tonic::Request<Streaming<SessionRequest>>,
    ) -> Result<tonic::Response<Self::SessionStream>, Status> {
        let (responses, answers) = mpsc::channel(64);
        let conversation = Conversation {
            requests: request.into_inner(),
            responses,
            reports: Vec::new(),
            lines: Vec::new(),
        };
        self.0
            .send(conversation)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(tonic::Response::new(ReceiverStream::new(answers)))
    }
}

/// Accepts streams.
pub(crate) struct Coordinator {
    conversations: Mutex<mpsc::Receiver<Conversation>>,
}

/// A coordinator, and how to dial it.
pub(crate) fn start() -> (Coordinator, Dial) {
    let (conversation, conversations) = mpsc::channel(4);
    let (connect, connections) = mpsc::channel::<std::io::Result<DuplexStream>>(4);
    tokio::spawn(
        Server::builder()
            .add_service(AgentServiceServer::new(Service(conversation)))
            .serve_with_incoming(ReceiverStream::new(connections)),
    );
    let dial: Dial = Arc::new(move |hello| {
        let connect = connect.clone();
        Box::pin(async move {
            let channel = Endpoint::from_static("http://coordinator")
                .connect_with_connector(tower::service_fn(move |_: Uri| {
                    let connect = connect.clone();
                    async move {
                        let (ours, theirs) = tokio::io::duplex(1 << 16);
                        connect.send(Ok(theirs)).await.map_err(std::io::Error::other)?;
                        Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(ours))
                    }
                }))
                .await
                .map_err(|error| Trouble::Passing(error.to_string()))?;
            dial::over_channel(channel, hello).await
        })
    });
    let coordinator = Coordinator {
        conversations: Mutex::new(conversations),
    };
    (coordinator, dial)
}

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("no {what} in {PATIENCE:?}"))
}

impl Coordinator {
    /// The next stream, up to its Hello.
    pub(crate) async fn conversation(&self) -> (Conversation, Hello) {
        let mut conversations = self.conversations.lock().await;
        let mut conversation = soon("stream", conversations.recv()).await.expect("a stream");
        match conversation.next().await {
            Request::Hello(hello) => (conversation, hello),
            other => panic!("{other:?} instead of Hello"),
        }
    }

    /// The next stream, welcome.
    pub(crate) async fn welcome(&self, ended: &[String]) -> (Conversation, Hello) {
        let (mut conversation, hello) = self.conversation().await;
        let welcome = Welcome {
            epoch: 1,
            heartbeat_interval_ms: 60_000,
            lease_seconds: 3,
            ended_operation_ids: ended.to_vec(),
            now_unix_ms: 0,
            ca_pem: String::new(),
            signing_root: String::new(),
        };
        conversation.say(Response::Welcome(welcome)).await;
        (conversation, hello)
    }
}

impl Conversation {
    pub(crate) async fn say(&mut self, message: Response) {
        let response = SessionResponse {
            message: Some(message),
        };
        self.responses
            .send(Ok(response))
            .await
            .expect("the agent listens");
    }

    pub(crate) async fn offer(&mut self, offer: &Offer) {
        self.say(Response::Offer(offer.clone())).await;
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Request {
        let message = soon("message", self.requests.message())
            .await
            .expect("the stream is good")
            .expect("the stream goes on");
        let message = message.message.expect("one is set");
        match &message {
            Request::Report(report) => self.reports.push(report.clone()),
            Request::Propose(propose) => {
                let line = propose.proposal.clone().unwrap().log_message;
                if !line.is_empty() {
                    self.lines.push(line);
                }
            }
            _ => {}
        }
        message
    }

    /// The stream's end as the agent makes it.
    pub(crate) async fn ends(&mut self) {
        soon("end", async {
            while let Ok(Some(_)) = self.requests.message().await {}
        })
        .await;
    }

    pub(crate) async fn report(&mut self) -> HostReport {
        loop {
            if let Request::Report(report) = self.next().await {
                return report;
            }
        }
    }

    pub(crate) async fn proposal(&mut self) -> Propose {
        loop {
            match self.next().await {
                Request::Propose(propose) => return propose,
                Request::Finish(finish) => panic!("{finish:?} instead of a proposal"),
                _ => {}
            }
        }
    }

    pub(crate) async fn accept(&mut self, propose: &Propose, fence: u64) {
        self.say(Response::ProposeAnswer(ProposeAnswer {
            request_id: propose.request_id,
            accepted: true,
            fence,
            reason: String::new(),
        }))
        .await;
    }

    pub(crate) async fn refuse(&mut self, propose: &Propose) {
        self.say(Response::ProposeAnswer(ProposeAnswer {
            request_id: propose.request_id,
            accepted: false,
            fence: 0,
            reason: "held by somebody else".into(),
        }))
        .await;
    }

    /// Accepts every proposal until the operation ends.
    pub(crate) async fn finish(&mut self, fence: u64) -> Finish {
        loop {
            match self.next().await {
                Request::Propose(propose) => self.accept(&propose, fence).await,
                Request::Finish(finish) => return finish,
                _ => {}
            }
        }
    }

    pub(crate) async fn answer(&mut self, finish: &Finish) {
        self.say(Response::FinishAnswer(FinishAnswer {
            operation_id: finish.operation_id.clone(),
            accepted: true,
            reason: String::new(),
        }))
        .await;
    }
}
