//! What an agent sends after its Hello: reports, proposals, ends, measures and answers, in any order.

use hostler_common::rpc::hostler::agent::v1::session_response::Message;
use hostler_common::rpc::hostler::agent::v1::{Hello, SessionRequest, SessionResponse, session_request};
use http::HeaderMap;
use prost::Message as _;

use super::world::{self, Until, bounded, frame};
use crate::frames;

/// The agent's process, for inputs to name.
pub const TOKEN: &str = "fuzz-token";

/// The most that one message to an agent may have, in bytes: a refusal for each of 1024 claims is the longest.
const ANSWER_AT_MOST: usize = 1 << 20;

/// # Panics
/// When the session hangs, or an answer is too long.
pub fn run(data: &[u8]) {
    world::with(|world| {
        let hello = SessionRequest {
            message: Some(session_request::Message::Hello(Hello {
                host: "h1".to_owned(),
                process_token: TOKEN.to_owned(),
                protocol: 1,
                ..Default::default()
            })),
        };
        let mut body = frame(&hello.encode_to_vec());
        for message in frames::split(data) {
            body.extend_from_slice(&frame(&world.fill(message)));
        }
        let path = "/hostler.agent.v1.AgentService/Session";
        let answer = world.call(path, "agent/h1", HeaderMap::new(), body, Until::End);
        for message in &answer.messages {
            assert!(
                message.len() <= ANSWER_AT_MOST,
                "an answer has {} bytes",
                message.len()
            );
            let response = SessionResponse::decode(message.as_slice()).expect("an answer");
            match response.message.expect("an answer says something") {
                Message::ProposeAnswer(answer) => bounded(&answer.reason),
                Message::FinishAnswer(answer) => bounded(&answer.reason),
                Message::Refused(refused) => bounded(&refused.reason),
                Message::ReportAnswer(answer) => {
                    answer.refused.iter().for_each(|refused| bounded(&refused.reason));
                    answer
                        .refused_pools
                        .iter()
                        .for_each(|refused| bounded(&refused.reason));
                }
                _ => {}
            }
        }
        world.check();
    });
}
