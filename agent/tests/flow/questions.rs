//! Questions on the stream: each is answered once, with words where there is nothing else.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hostler_agent::session::questions::{Answerer, PLACES};
use hostler_common::rpc::hostler::agent::v1::ask::Question;
use hostler_common::rpc::hostler::agent::v1::ask_answer::Answer;
use hostler_common::rpc::hostler::agent::v1::session_request::Message as Request;
use hostler_common::rpc::hostler::agent::v1::session_response::Message as Response;
use hostler_common::rpc::hostler::agent::v1::{
    Ask, AskAnswer, Backup, Heartbeat, ListBackupsAnswer, ListBackupsQuestion,
};

use crate::coordinator::{self, Conversation};
use crate::session::Agent;
use crate::world::{Rig, World};

const LONG: Duration = Duration::from_secs(60);

/// Answers for the pool `default` alone, and panics about `bad`.
fn answerer() -> Answerer {
    Arc::new(|_, pool| match pool.as_str() {
        "default" => Ok(Answer::ListBackups(ListBackupsAnswer {
            backups: vec![Backup {
                id: "abcd".into(),
                ..Backup::default()
            }],
        })),
        "bad" => panic!("on purpose"),
        other => Err(format!("this host does not own the pool {other}")),
    })
}

/// Hangs until the other end is dropped.
fn slow() -> (Sender<()>, Answerer) {
    let (release, hang) = channel();
    let hang = Mutex::new(hang);
    let answerer: Answerer = Arc::new(move |_, _| {
        let _ = hang.lock().unwrap().recv_timeout(LONG);
        Err("released".into())
    });
    (release, answerer)
}

fn ask(request_id: u64, pool: &str) -> Ask {
    Ask {
        request_id,
        pool: pool.into(),
        question: Some(Question::ListBackups(ListBackupsQuestion {})),
    }
}

async fn answer(talk: &mut Conversation) -> AskAnswer {
    loop {
        if let Request::AskAnswer(answer) = talk.next().await {
            return answer;
        }
    }
}

async fn refusal(talk: &mut Conversation, ask: Ask) -> String {
    talk.say(Response::Ask(ask.clone())).await;
    let answer = answer(talk).await;
    assert_eq!(answer.request_id, ask.request_id);
    match answer.answer {
        Some(Answer::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_or_refused_with_a_sentence() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    let agent = Agent::start_answering(&rig, &dial, answerer());
    let (mut talk, _) = coordinator.welcome(&[]).await;
    talk.say(Response::Ask(ask(7, "default"))).await;
    let answer = answer(&mut talk).await;
    assert_eq!(answer.request_id, 7);
    match answer.answer {
        Some(Answer::ListBackups(list)) => assert_eq!(list.backups[0].id, "abcd"),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        refusal(&mut talk, ask(8, "other")).await,
        "this host does not own the pool other"
    );
    let ill_formed = refusal(&mut talk, ask(9, "../etc")).await;
    assert!(ill_formed.contains("pool name"), "{ill_formed}");
    let panicked = refusal(&mut talk, ask(10, "bad")).await;
    assert!(panicked.contains("this is a bug"), "{panicked}");
    let empty = Ask {
        question: None,
        ..ask(11, "default")
    };
    let unknown = refusal(&mut talk, empty).await;
    assert!(unknown.contains("does not know the question"), "{unknown}");
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_questions_are_refused_and_the_stream_goes_on() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    let (release, slow) = slow();
    let agent = Agent::start_answering(&rig, &dial, slow);
    let (mut talk, _) = coordinator.welcome(&[]).await;
    for number in 0..32 {
        talk.say(Response::Ask(ask(number, "default"))).await;
    }
    let refused = refusal(&mut talk, ask(99, "default")).await;
    assert!(refused.contains("ask again later"), "{refused}");
    talk.say(Response::Heartbeat(Heartbeat {})).await;
    while !matches!(talk.next().await, Request::Heartbeat(_)) {}
    drop(release);
    let mut answered: Vec<_> = Vec::new();
    for _ in 0..32 {
        answered.push(answer(&mut talk).await.request_id);
    }
    answered.sort_unstable();
    assert_eq!(answered, (0..32).collect::<Vec<_>>());
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_lost_takes_its_questions_with_it() {
    let (coordinator, dial) = coordinator::start();
    let rig = Rig::new(World::with(&[]));
    let (release, slow) = slow();
    let agent = Agent::start_answering(&rig, &dial, slow);
    {
        let (mut talk, _) = coordinator.welcome(&[]).await;
        for number in 0..u64::try_from(PLACES).unwrap() {
            talk.say(Response::Ask(ask(number, "default"))).await;
        }
        talk.say(Response::Heartbeat(Heartbeat {})).await;
        while !matches!(talk.next().await, Request::Heartbeat(_)) {}
    }
    let (mut talk, _) = coordinator.welcome(&[]).await;
    drop(release);
    talk.say(Response::Ask(ask(77, "default"))).await;
    assert_eq!(
        answer(&mut talk).await.request_id,
        77,
        "nobody asked for the others here"
    );
    agent.end().await;
}
