//! A holder that was stopped for longer than its lease, replaced, and continued: the real programs. The lease only tells
//! who is alive, so none of these may depend on it: the former holder changes nothing, on the host or at the coordinator.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::path::PathBuf;

use hostler_common::rpc::hostler::agent::v1 as rpc;
use hostler_common::rpc::hostler::agent::v1::session_request::Message as Says;
use hostler_common::rpc::hostler::agent::v1::session_response::Message as Hears;
use hostler_common::rpc::hostler::fleet::v1::Operation;
use hostler_common::rpc::n0stack::protobuf::ProposeOperationRequest;
use hostler_common::rpc::operations::v1::OperationState;
use hostler_tests::agent::{Behaviour, Setup, SimulatedAgent};
use hostler_tests::crash::client::{Call, Seen, Told};
use hostler_tests::crash::round::{Has, Victim};
use hostler_tests::crash::tally::Tally;
use hostler_tests::crash::trap::Action;
use hostler_tests::crash::world::{Setting, World};
use hostler_tests::programs::{Process, command};
use hostler_tests::wait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A world in which hv1 can be created.
async fn ready() -> World {
    let world = World::begin(Setting {
        has: Has::Hypervisor,
        lease: 1,
        operations: "",
    });
    let world = world.unwrap();
    wait::until("hv1 can be created", || async {
        let state = world.client.hypervisor().await?.state();
        (state == hostler_common::rpc::operations::v1::HypervisorState::AvailableToCreate).then_some(())
    })
    .await;
    world
}

/// A world whose agent stops itself at the `nth` passing of a point of a create, and the client of that.
async fn stopped_at(point: &str, nth: u64) -> (World, JoinHandle<Told>) {
    let world = ready().await;
    world.agent_trap.arm(point, nth, Action::Stop);
    let client = call(&world, Call::Create);
    wait::until("the agent stops itself", || async {
        world.agent_trap.fell().then_some(())
    })
    .await;
    (world, client)
}

fn call(world: &World, call: Call) -> JoinHandle<Told> {
    tokio::spawn(
        world
            .client
            .clone()
            .follow(call, watch::Sender::new(Seen::default())),
    )
}

async fn completed(client: JoinHandle<Told>) {
    let told = wait::until("the client hears of the end", || async {
        client.is_finished().then_some(())
    });
    told.await;
    let told = client.await.unwrap();
    assert_eq!(told.end, Some(OperationState::Completed), "{told:?}");
}

async fn history(world: &World) -> Vec<Operation> {
    wait::until("the history is told", || world.client.history()).await
}

fn read(world: &World, name: &str) -> String {
    std::fs::read_to_string(world.site.path(name)).unwrap_or_default()
}

/// Another agent of the same host and certificate.
fn another(world: &World, state_dir: &str) -> Process {
    let text = read(world, "agent.toml").replace("agent-state", state_dir);
    let config = world.site.write(&format!("{state_dir}.toml"), &text);
    let mut command = command("hostler-agent");
    command.arg("--config").arg(config);
    Process::start(&mut command, &world.site.path(&format!("{state_dir}.log")))
}

/// What the former holder knows of its operation: the token and the fence in its journal.
fn knows(world: &World) -> (PathBuf, String, String, u64) {
    let folder = world.site.path("agent-state/journal");
    let journal = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&journal).unwrap();
    let begun = text.lines().next().unwrap().split_once(' ').unwrap().1;
    let begun: serde_json::Value = serde_json::from_str(begun).unwrap();
    let text = |name: &str| begun[name].as_str().unwrap().to_owned();
    let fence = begun["fence"].as_u64().unwrap();
    (journal, text("operation"), text("token"), fence)
}

/// The former holder's words, said again by who has its certificate and its token.
async fn replay(world: &World) {
    let (_, operation_id, token, fence) = knows(world);
    let mut setup = Setup::of("h1", &["hv1"]).that(Behaviour::Ignores);
    setup.token.clone_from(&token);
    setup.journaled = vec![operation_id.clone()];
    let credentials = hostler_pki::Credentials::load(&world.site.ca.files("agent/h1")).unwrap();
    let config = hostler_pki::client_config(&credentials).unwrap();
    let address = format!("127.0.0.1:{}", world.site.port).parse().unwrap();
    let channel = hostler_pki::channel(&address, config, hostler_pki::ChannelOptions::default());
    let former = SimulatedAgent::over(setup, channel).await;
    former
        .until(
            "the former holder is told that it has ended",
            |message| match message {
                Hears::Welcome(welcome) => welcome.ended_operation_ids.contains(&operation_id).then_some(()),
                _ => None,
            },
        )
        .await;
    let before = history(world).await;
    let propose = rpc::Propose {
        request_id: 1,
        operation_id: operation_id.clone(),
        fence,
        newest_fence: fence,
        proposal: Some(ProposeOperationRequest {
            name: "hv1".to_owned(),
            proposing_peer_token: token.clone(),
            lock_for_seconds: 60,
            log_message: "still at it".to_owned(),
            ..Default::default()
        }),
    };
    former.send(Says::Propose(propose)).await;
    former
        .until("its proposal is refused", |message| match message {
            Hears::ProposeAnswer(answer) => (!answer.accepted).then_some(()),
            _ => None,
        })
        .await;
    for outcome in [
        rpc::Outcome::Failed,
        rpc::Outcome::NeedsAttention,
        rpc::Outcome::Done,
    ] {
        former
            .send(Says::Finish(rpc::Finish {
                operation_id: operation_id.clone(),
                process_token: token.clone(),
                fence,
                outcome: outcome.into(),
                message: "it ended otherwise".to_owned(),
            }))
            .await;
    }
    // And one unasked: with its proposal it has heard that the operation is over.
    wait::until("its ends are answered", || async {
        (former.count(|message| matches!(message, Hears::FinishAnswer(_))) == 4).then_some(())
    })
    .await;
    let accepted = former.count(|message| matches!(message, Hears::FinishAnswer(answer) if answer.accepted));
    assert_eq!(accepted, 0);
    assert_eq!(history(world).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_was_stopped_between_two_steps_and_replaced_begins_no_other_step() {
    let (mut world, create) = stopped_at("done.before", 2).await;
    let replacement = another(&world, "agent-state-of-another");
    completed(create).await;
    completed(call(&world, Call::Destroy)).await;
    let (turns, before) = (read(&world, "turns"), history(&world).await);
    assert_eq!(turns, "start\nstop\n", "the replacement did both");
    assert_eq!(before[1].attempts, 2, "{before:?}");
    world.continue_agent();
    wait::until("the former holder is refused", || async {
        read(&world, "agent.log")
            .contains("is served by another agent")
            .then_some(())
    })
    .await;
    assert_eq!(read(&world, "turns"), turns);
    assert!(!world.site.path("active").exists());
    assert_eq!(history(&world).await, before);
    // Now it is alone, and hears that its operation is over.
    replacement.kill();
    let (journal, ..) = knows(&world);
    wait::until("its journal is put aside", || async {
        (!journal.exists()).then_some(())
    })
    .await;
    assert_eq!(read(&world, "turns"), turns);
    assert!(!world.site.path("active").exists());
    assert_eq!(history(&world).await, before);
    assert_eq!(world.fallen(), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_stopped_and_replaced_holder_says_again_changes_nothing() {
    let (world, create) = stopped_at("done.before", 4).await;
    assert!(world.site.path("active").exists(), "its last step ran");
    let replacement = another(&world, "agent-state-of-another");
    completed(create).await;
    completed(call(&world, Call::Destroy)).await;
    replacement.kill();
    replay(&world).await;
    world.continue_agent();
    let (journal, ..) = knows(&world);
    wait::until("its journal is put aside", || async {
        (!journal.exists()).then_some(())
    })
    .await;
    assert!(!world.site.path("active").exists());
    let history = history(&world).await;
    assert_eq!(history.len(), 2, "{history:?}");
    assert!(history.iter().all(|one| one.state() == OperationState::Completed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stopped_agent_keeps_its_state_directory_from_a_replacement_and_goes_on_under_a_new_fence() {
    let (mut world, create) = stopped_at("started.after", 2).await;
    let (_, operation, _, fence) = knows(&world);
    let scheduled = wait::until("its lease runs out", || async {
        let operations = world.client.history().await?;
        let kept = operations.into_iter().find(|kept| kept.id == operation)?;
        (kept.state() == OperationState::Scheduled).then_some(kept)
    })
    .await;
    assert_eq!(scheduled.attempts, 1);
    let mut replacement = another(&world, "agent-state");
    assert!(!replacement.ended().await.success());
    let said = replacement.printed();
    assert!(said.contains("another agent uses the state directory"), "{said}");
    world.continue_agent();
    completed(create).await;
    let ended = &history(&world).await[0];
    assert_eq!(ended.attempts, 2, "{ended:?}");
    assert!(ended.fence > fence, "{ended:?}");
    assert_eq!(read(&world, "turns"), "start\n");
    assert_eq!(world.fallen(), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_activation_under_way_is_waited_for_though_the_agent_was_killed_and_its_directory_was_lost() {
    let mut world = ready().await;
    // It goes on until it is told otherwise.
    world.site.write("parts", "1000000");
    let create = call(&world, Call::Create);
    wait::until("the activation runs", || async {
        (read(&world, "turns") == "start\n").then_some(())
    })
    .await;
    world.kill(Victim::Agent, "in an activation", &mut Tally::default());
    std::fs::rename(world.site.path("agent-state"), world.site.path("lost")).unwrap();
    world.start();
    wait::until("the next agent comes to the activation", || async {
        let journal = std::fs::read_dir(world.site.path("agent-state/journal"))
            .ok()?
            .next()?
            .ok()?;
        let text = std::fs::read_to_string(journal.path()).ok()?;
        let begun = |line: &str| line.contains("step_started") && line.contains("activate");
        text.lines().any(begun).then_some(())
    })
    .await;
    world.site.write("parts", "1");
    completed(create).await;
    assert_eq!(read(&world, "overlaps"), "");
    assert_eq!(read(&world, "turns"), "start\n", "the second one found it active");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_agent_keeps_its_state_directory_though_it_was_removed_under_it() {
    let world = ready().await;
    std::fs::remove_dir_all(world.site.path("agent-state")).unwrap();
    let mut second = another(&world, "agent-state");
    assert!(!second.ended().await.success());
    let said = second.printed();
    assert!(said.contains("another agent uses the state directory"), "{said}");
}
